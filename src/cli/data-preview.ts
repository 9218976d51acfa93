import pc from "picocolors";
import { buildDataset, type DatasetOptions, type DataReport } from "../data/dataset.ts";
import { planEpoch } from "../data/epoch.ts";
import { exampleWriter, type ExampleStore } from "../data/example-store.ts";
import { type PreviewPiece, previewPieces } from "../data/preview.ts";
import type { SourceRows } from "../data/read/source-row.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { readDataset } from "../host/dataset-files.ts";
import { spillingWords } from "../host/spilling-words.ts";

/** What to show of which data. */
export interface DataPreviewOptions extends DatasetOptions {
  /** Files, folders, or `-`. */
  readonly paths: readonly string[];
  /** Show rows of packed samples, as the first pass of training has them. */
  readonly packing?: boolean;
  /** Samples to show, with `packing` rows. Default 3. */
  readonly count?: number;
  /** Rows to read; undefined: all. */
  readonly limit?: number | undefined;
  /** Print one JSON object instead. */
  readonly json?: boolean;
  /** Colours instead of brackets. Default: what the terminal can do. */
  readonly color?: boolean;
}

interface Sample {
  /** File and line. */
  readonly row: string;
  readonly tokens: number;
  readonly trainedTokens: number;
  readonly pieces: readonly PreviewPiece[];
}

/** Samples that are packed into one row; position and attention begin anew in each. */
interface PackedSamples {
  readonly tokens: number;
  readonly samples: readonly Sample[];
}

/**
 * Prints the first samples (or packed rows) as the model will read them, with the trained tokens marked, and what was read.
 * @throws LorikeetError what reading and tokenizing throws
 */
export async function dataPreview(
  options: DataPreviewOptions,
  print: (text: string) => void,
): Promise<void> {
  const { paths, limit = Infinity, json = false, packing = false } = options;
  const writer = options.writer ?? exampleWriter(spillingWords());
  const rows = firstRows(readDataset(paths), limit);
  const { store, report } = await buildDataset(rows, { ...options, writer });
  const printing = { color: options.color ?? pc.isColorSupported, print };
  try {
    const shown = packing ? await packedRows(store, options) : await firstSamples(store, options);
    if (json) print(`${JSON.stringify({ report, ...shown }, null, 2)}\n`);
    else {
      if ("rows" in shown) printRows(shown, printing);
      else printSamples(shown.samples, report, printing);
      printReport(report, printing);
    }
  } finally {
    await store.dispose();
  }
}

async function firstSamples(
  store: ExampleStore,
  { count = 3, tokenizer }: DataPreviewOptions,
): Promise<{ samples: Sample[] }> {
  const samples: Sample[] = [];
  for (let i = 0; i < Math.min(count, store.count); i++)
    samples.push(await sampleOf(store, i, tokenizer));
  return { samples };
}

interface PackedPreview {
  readonly packing: { readonly rows: number; readonly capacity: number };
  readonly rows: readonly PackedSamples[];
}

async function packedRows(
  store: ExampleStore,
  options: DataPreviewOptions,
): Promise<PackedPreview> {
  const { count = 3, tokenizer, contextLength = Infinity, seed = 0 } = options;
  const capacity = Math.min(options.maxLength, contextLength);
  const shape = { batchSize: 1, maxLength: capacity, packing: true, seed };
  const all = Array.from({ length: store.count }, (_, i) => i);
  const plan = planEpoch(all, store.lengths, shape, 0).flat();
  const rows: PackedSamples[] = [];
  for (const row of plan.slice(0, count)) {
    const samples: Sample[] = [];
    for (const sample of row) samples.push(await sampleOf(store, sample, tokenizer));
    rows.push({ tokens: samples.reduce((sum, { tokens }) => sum + tokens, 0), samples });
  }
  return { packing: { rows: plan.length, capacity }, rows };
}

async function sampleOf(store: ExampleStore, i: number, tokenizer: Tokenizer): Promise<Sample> {
  return {
    row: store.nameOf(i),
    tokens: store.lengths[i]!,
    trainedTokens: store.supervised[i]!,
    pieces: previewPieces(await store.read(i), tokenizer),
  };
}

async function* firstRows(rows: SourceRows, limit: number): SourceRows {
  let count = 0;
  for await (const row of rows) {
    yield row;
    if (++count >= limit) return;
  }
}

interface Printing {
  readonly color: boolean;
  readonly print: (text: string) => void;
}

function printSamples(
  samples: readonly Sample[],
  { samples: count }: DataReport,
  { color, print }: Printing,
): void {
  for (const [i, sample] of samples.entries()) {
    const { tokens, trainedTokens } = sample;
    print(pc.createColors(color).bold(`Sample ${i + 1} of ${count}`));
    print(`: ${tokens} tokens, ${trainedTokens} trained\n${textOf(sample, color)}\n\n`);
  }
}

function printRows({ packing, rows }: PackedPreview, { color, print }: Printing): void {
  const { bold } = pc.createColors(color);
  for (const [i, { tokens, samples }] of rows.entries()) {
    print(bold(`Row ${i + 1} of ${packing.rows}`));
    const some = samples.length === 1 ? "1 sample" : `${samples.length} samples`;
    print(`: ${some}, ${tokens} of ${packing.capacity} tokens\n`);
    let from = 0;
    for (const [j, sample] of samples.entries()) {
      const to = from + sample.tokens;
      const about = `tokens ${from} to ${to - 1}, ${sample.trainedTokens} trained, ${sample.row}`;
      print(`${bold(`── Sample ${j + 1}`)}: ${about}\n`);
      print(`${textOf(sample, color)}\n`);
      from = to;
    }
    print("\n");
  }
}

function textOf({ pieces }: Sample, color: boolean): string {
  const { green, dim } = pc.createColors(color);
  const mark = (text: string): string => (color ? green(text) : `⟦${text}⟧`);
  const marked = pieces.map(({ text, isTrained }) =>
    eachLine(withoutControls(text), isTrained ? mark : dim),
  );
  return marked.join("");
}

function printReport(report: DataReport, { color, print }: Printing): void {
  const { green, yellow } = pc.createColors(color);
  const share = ((100 * report.supervisedTokens) / report.tokens).toFixed(1);
  print(
    `${report.samples} samples of ${report.rows} rows, ${report.tokens} tokens, ${report.supervisedTokens} of them trained (${share} %), longest sample ${report.longest}\n`,
  );
  print(color ? `${green("Green")} is trained.\n` : "What stands in ⟦ ⟧ is trained.\n");
  for (const { message } of report.warnings) print(`${yellow("Warning:")} ${message}.\n`);
}

/** Marks lines one by one, so that a pager or a scrolled terminal keeps the colour. */
function eachLine(text: string, mark: (line: string) => string): string {
  return text.replaceAll(/[^\n]+/g, mark);
}

/** Data must not steer the terminal: control characters are shown as escapes. */
function withoutControls(text: string): string {
  return text.replaceAll(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
