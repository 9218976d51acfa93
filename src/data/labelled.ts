import { LorikeetError, nearest } from "../errors.ts";
import { faultsError } from "../formats/faults.ts";
import { type DataWarning, dataWarnings } from "./data-warnings.ts";
import { formatPlace, type Place, type SourceRow, type SourceRows } from "./read/source-row.ts";
import { type LabelledRow, labelledRow } from "./rows/labelled.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { rowKey } from "./validation-split.ts";

/** A text as an encoder reads it, and its class by number. */
export interface LabelledExample {
  readonly ids: Int32Array;
  readonly label: number;
  /** Of the row's content. */
  readonly key: number;
  /** Where its row stands. */
  readonly place: Place;
}

/** Texts of classes. */
export interface Labelled {
  readonly examples: readonly LabelledExample[];
  /** The classes in the order of their numbers. */
  readonly labels: readonly string[];
  readonly tokens: number;
  readonly longest: number;
  readonly warnings: readonly DataWarning[];
}

/** How rows become examples. */
export interface LabelledOptions {
  readonly tokenizer: Tokenizer;
  /** Longest text in tokens; longer ones are cut before their last token. */
  readonly maxLength: number;
  /** The classes, where they are known before the data is read. */
  readonly labels: readonly string[] | undefined;
  /** The classes that the model names, used where they are those of the data. */
  readonly known: readonly string[];
  readonly skipBadRows: boolean;
  readonly seed: number;
}

type PlacedRow = LabelledRow & { readonly place: Place };

/** Bad rows that are listed. */
const LISTED = 20;

/**
 * Reads and tokenizes rows of text and label.
 * @throws LorikeetError `data-rows` listing bad rows, `data-empty`, `data-labels` for fewer than two classes
 */
export async function buildLabelled(rows: SourceRows, options: LabelledOptions): Promise<Labelled> {
  const read: PlacedRow[] = [];
  const faults: string[] = [];
  for await (const source of rows) {
    const row = parse(source, options.labels);
    if (typeof row === "string") faults.push(row);
    else read.push(row);
    if (!options.skipBadRows && faults.length === LISTED) break;
  }
  const advice = "Correct these rows, or leave them out with --skip-bad-rows.";
  if (faults.length > 0 && !options.skipBadRows)
    throw faultsError("data-rows", "rows of text and label", faults, advice);
  if (read.length === 0)
    throw new LorikeetError("data-empty", `Expected rows of text and label, got ${faults.length > 0 ? "only bad ones" : "none"}`, { hint: "Check that the path names the data that you mean." }); // prettier-ignore
  const labels = options.labels ?? labelsOf(read, options.known);
  const { examples, cutRows, cutTokens } = tokenized(read, labels, options);
  const lengths = examples.map(({ ids }) => ids.length);
  return {
    examples,
    labels,
    tokens: lengths.reduce((sum, length) => sum + length, 0),
    longest: lengths.reduce((most, length) => Math.max(most, length), 0),
    warnings: dataWarnings({
      ...{ rows: read.length + faults.length, badRows: faults.length, cutRows, cutTokens },
      ...{ firstFaults: faults.slice(0, 3), untrainedRows: 0, lostAnswers: 0 },
      ...{ askedLength: options.maxLength, maxLength: options.maxLength },
      hiddenTools: 0,
      usesDefaultTemplate: false,
    }),
  };
}

/** The row, or what is wrong with it. */
function parse(source: SourceRow, labels: readonly string[] | undefined): PlacedRow | string {
  const place = formatPlace(source.place);
  try {
    if ("fault" in source) throw source.fault;
    const row = labelledRow(source.value);
    if (!labels || labels.includes(row.label)) return { ...row, place: source.place };
    const [near] = nearest(row.label, labels, 1);
    return `${place}: Expected a label of ${labels.join(", ")}, got "${row.label}"${near === undefined ? "" : ` (did you mean "${near}"?)`}`;
  } catch (fault) {
    if (fault instanceof LorikeetError) return `${place}: ${fault.message}`;
    throw fault;
  }
}

/** The model's classes where the data has no other, numbers of classes as they are, or what the data has, sorted. */
function labelsOf(rows: readonly LabelledRow[], known: readonly string[]): readonly string[] {
  const found = [...new Set(rows.map(({ label }) => label))].sort();
  if (found.every((label) => known.includes(label))) return known;
  if (found.every((label) => /^\d+$/.test(label)))
    return Array.from({ length: 1 + Math.max(...found.map(Number)) }, (_, id) => String(id));
  if (found.length >= 2) return found;
  throw new LorikeetError(
    "data-labels",
    `Expected at least two classes in the data, got ${found.join(", ")}`,
    { hint: "Add rows of other labels, or name all classes with labels." },
  );
}

function tokenized(
  rows: readonly PlacedRow[],
  labels: readonly string[],
  { tokenizer, maxLength, seed }: LabelledOptions,
): { examples: LabelledExample[]; cutRows: number; cutTokens: number } {
  let [cutRows, cutTokens] = [0, 0];
  const examples = rows.map(({ text, label, place }): LabelledExample => {
    const ids = tokenizer.encode(text);
    const key = rowKey({ kind: "text", text: `${label}\n${text}` }, seed);
    const surplus = ids.length - maxLength;
    if (surplus > 0) {
      cutRows++;
      cutTokens += surplus;
      // the last token ends the text ([SEP], </s>) and stays
      ids.splice(maxLength - 1, surplus);
    }
    return { ids: Int32Array.from(ids), label: labels.indexOf(label), key, place };
  });
  return { examples, cutRows, cutTokens };
}
