// A button that copies the text of an element.

import { toast } from "./dialogs.js";
import { h } from "./dom.js";

export const copyButton = (element) =>
  h("button", { type: "button", class: "small", onclick: async () => {
    try {
      await navigator.clipboard.writeText(element.textContent);
      toast("Copied");
    } catch {
      getSelection().selectAllChildren(element);
      toast("Select and copy: this page may not use the clipboard");
    }
  } }, "Copy");
