import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";

const sources = readdirSync("src", { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts") && !path.endsWith(".test.ts"))
  .map((path) => ({ path, text: readFileSync(`src/${path}`, "utf8") }));

/** Functions that take a code first, besides the error's own constructor. */
const RAISE = String.raw`(?:new LorikeetError|faultsError|failure)\(\s*`;

/** Codes in `text`: first arguments of the above, and `code: "…"` of tables of errors and warnings. */
function codesIn(text: string): string[] {
  const pattern = new RegExp(`(?:${RAISE}|\\bcode: )"([a-z][a-z0-9-]*)"`, "g");
  return [...text.matchAll(pattern)].map((match) => match[1]!);
}

const raised = new Set(sources.flatMap(({ text }) => codesIn(text)));
const rows = readFileSync("docs/errors.md", "utf8")
  .split("\n")
  .filter((line) => line.startsWith("| `"))
  .map((line) => line.split(/(?<!\\)\|/).slice(1, -1))
  .map((cells) => cells.map((cell) => cell.trim()));
const documented = rows.map(([code = ""]) => code.replaceAll("`", ""));

test("every code has a row in docs/errors.md, with a cause and a remedy", () => {
  expect([...raised].filter((code) => !documented.includes(code))).toEqual([]);
  for (const cells of rows) {
    expect(cells).toHaveLength(3);
    for (const cell of cells) expect(cell).not.toBe("");
  }
});

test("every row stands for a code that can be raised, once", () => {
  expect(documented.filter((code) => !raised.has(code))).toEqual([]);
  expect(documented).toEqual([...new Set(documented)]);
});

/** Faults of a program that calls the library, or of Lorikeet itself: the message says which value of which call. */
const OF_CALLS = "cuda-launch cuda-plan dtype duplicate-tensor engine-disposed engine-internal feed gradient invalid-graph missing-weight program-disposed shape tensor-mismatch unsupported-op".split(" "); // prettier-ignore

test("every error that a user can cause says what to do", () => {
  const silent = sources.flatMap(({ path, text }) =>
    [...text.matchAll(/new LorikeetError\(\s*"([a-z0-9-]+)"[^]*?;(?: \/\/.*)?\n/g)]
      .filter(([all, code]) => !all.includes("hint") && !OF_CALLS.includes(code!))
      .map(([, code]) => `${path}: ${code}`),
  );
  expect(silent).toEqual([]);
});

test("codes are found wherever an error is made", () => {
  // these pass on a code that they were given, or take it from a table of `code: "…"`
  const passesOn = sources.filter(({ text }) => /new LorikeetError\(\s*[^"\s]/.test(text));
  expect(passesOn.map(({ path }) => path.replaceAll("\\", "/")).sort()).toEqual([
    "backends/onnx/protocol.ts",
    "backends/onnx/session-node.ts",
    "cli/adapter-base.ts",
    "data/dataset.ts",
    "formats/faults.ts",
    "host/dataset-files.ts",
    "host/file-errors.ts",
    "host/merged-checkpoint.ts",
  ]);
});
