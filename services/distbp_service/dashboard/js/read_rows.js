// Rows of numbers as people write them: JSON, or a line for each row.

const isRow = (found) => typeof found === "object" && found !== null;

/** {rows} or {error}, in words for whoever wrote them. ragged: rows may have different lengths. Pure. */
export function readRows(text, ragged = false) {
  const trimmed = text.trim();
  if (trimmed === "") return { error: "Give at least one row of numbers." };
  if (/^[[{]/.test(trimmed)) {
    try {
      const found = JSON.parse(trimmed);
      return { rows: isRow(found[0]) ? found : [found] };
    } catch (problem) {
      if (trimmed.includes("{")) return { error: `This is not JSON: ${problem.message}` };
      // else perhaps several lines, each in brackets
    }
  }
  const rows = [];
  const lines = trimmed.split("\n");
  for (const [index, line] of lines.entries()) {
    const cells = line.replace(/^\s*\[|\]?\s*,?\s*$/g, "").split(/[\s,;]+/).filter(Boolean);
    if (cells.length === 0) continue;
    const wrong = cells.find((cell) => !Number.isFinite(Number(cell)));
    if (wrong !== undefined) return { error: `Line ${index + 1}: “${wrong.slice(0, 20)}” is not a number.` };
    rows.push(cells.map(Number));
  }
  const odd = ragged ? -1 : rows.findIndex((row) => row.length !== rows[0].length);
  if (odd >= 0) return { error: `Row ${odd + 1} has ${rows[odd].length} numbers, the first has ${rows[0].length}.` };
  return { rows };
}
