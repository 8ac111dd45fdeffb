// A job as YAML, for reading and copying. Only what JSON can hold; strings that YAML would read as something
// else are quoted.

const PLAIN = /^[A-Za-z_./][A-Za-z0-9_./ -]*$/;
const WORDS = /^(true|false|null|yes|no|on|off|y|n|~)$/i;

function scalar(value) {
  if (typeof value !== "string") return JSON.stringify(value);
  const plain = PLAIN.test(value) && !WORDS.test(value) && !value.endsWith(" ") && !/^\.(inf|nan|\d)/i.test(value);
  return plain ? value : JSON.stringify(value);
}

const isFlat = (value) => value === null || typeof value !== "object";

function short(value) {
  if (isFlat(value)) return scalar(value);
  if (Array.isArray(value)) return value.every(isFlat) ? `[${value.map(scalar).join(", ")}]` : null;
  const entries = Object.entries(value);
  if (!entries.every(([, inner]) => isFlat(inner))) return null;
  return `{${entries.map(([name, inner]) => `${scalar(name)}: ${scalar(inner)}`).join(", ")}}`;
}

function lines(value, indent, width) {
  const pad = " ".repeat(indent);
  if (Array.isArray(value)) {
    return value.flatMap((inner) => {
      const text = short(inner);
      if (text !== null && text.length + indent + 2 <= width) return [`${pad}- ${text}`];
      const block = lines(inner, indent + 2, width);
      return [`${pad}- ${block[0].trimStart()}`, ...block.slice(1)];
    });
  }
  return Object.entries(value).flatMap(([name, inner]) => {
    const text = short(inner);
    const head = `${pad}${scalar(name)}:`;
    if (text !== null && (isFlat(inner) || head.length + text.length + 1 <= width)) return [`${head} ${text}`];
    return [head, ...lines(inner, indent + 2, width)];
  });
}

/** YAML text of a mapping or a list. */
export const toYaml = (value, width = 88) => `${lines(value, 0, width).join("\n")}\n`;
