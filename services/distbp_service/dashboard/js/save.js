// Downloads: a link cannot carry the token, so the bytes are fetched and then handed to the browser.

import { call } from "./api.js";
import { toast } from "./dialogs.js";
import { h } from "./dom.js";

export async function save(path, name) {
  try {
    const address = URL.createObjectURL(await call(path, { as: "blob" }));
    h("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  } catch (error) {
    toast(error.message, "bad");
  }
}
