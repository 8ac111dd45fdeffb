// Health of the layers over the epochs: is any silent, exploding or saturated?

import { chart } from "../chart.js";
import { h, say } from "../dom.js";
import { areSeveral, column, place } from "../rows.js";

export function layersPanel(panel, known, signal) {
  const empty = "Health is reported with each epoch.";
  const gradient = chart({ title: "Gradient norm", log: true, digits: 3, empty }, signal);
  const update = chart({ title: "Update ratio", log: true, digits: 3, empty }, signal);
  const saturated = chart({ title: "Saturated units", share: true, digits: 3, empty: "Layers whose units can saturate are drawn here." }, signal);
  let seen = "";
  const whose = h("span");
  panel.append(
    h("p", { class: "quiet" }, "Weights of each layer. Update ratio: the size of a step beside the size of the weights; about 0.001 is common. ", whose),
    h("div", { class: "plots three" }, gradient.element, update.element, saturated.element),
  );
  return () => {
    const rows = known.rows.filter((row) => row.data.health && !row.data.member);
    say(whose, areSeveral(known.rows) ? "These are the layers of network 0." : "");
    const now = `${rows.length} ${rows.at(-1)?.step}`;
    if (now === seen) return;
    seen = now;
    const x = rows.map((row) => place(row, "epoch"));
    const tensors = Object.keys(rows.at(-1)?.data.health.tensors ?? {}).filter((name) => !name.endsWith(".bias"));
    const layers = Object.keys(rows.at(-1)?.data.health.saturated ?? {});
    const of = (field) => tensors.map((name) => ({
      label: layerName(name, tensors),
      values: column(rows, (data) => data.health.tensors?.[name]?.[field]),
    }));
    gradient.show({ x, series: of("gradient_norm") });
    update.show({ x, series: of("update_ratio") });
    saturated.show({ x, series: layers.map((name) => ({ label: layerName(name, layers), values: column(rows, (data) => data.health.saturated?.[name]) })) });
  };
}

/** "layers.0.dense.weight" as "layer 0", with the tensor's name too where the layer has several. Pure. */
export function layerName(name, all) {
  const [, number, , ...tensor] = name.split(".");
  if (number === undefined) return name;
  const several = all.filter((one) => one.startsWith(`layers.${number}.`)).length > 1;
  return `layer ${number}${several ? ` ${tensor.join(".")}` : ""}`;
}
