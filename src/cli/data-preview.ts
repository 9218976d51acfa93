import pc from "picocolors";
import { buildDataset, type DatasetOptions, type DataReport } from "../data/dataset.ts";
import { exampleWriter } from "../data/example-store.ts";
import { type PreviewPiece, previewPieces } from "../data/preview.ts";
import type { SourceRows } from "../data/read/source-row.ts";
import { readDataset } from "../host/dataset-files.ts";
import { spillingWords } from "../host/spilling-words.ts";

/** What to show of which data. */
export interface DataPreviewOptions extends DatasetOptions {
  /** Files, folders, or `-`. */
  readonly paths: readonly string[];
  /** Samples to show. Default 3. */
  readonly count?: number;
  /** Rows to read; undefined: all. */
  readonly limit?: number | undefined;
  /** Print one JSON object instead. */
  readonly json?: boolean;
  /** Colours instead of brackets. Default: what the terminal can do. */
  readonly color?: boolean;
}

interface Sample {
  readonly tokens: number;
  readonly trainedTokens: number;
  readonly pieces: readonly PreviewPiece[];
}

/**
 * Prints the first samples as the model will read them, with the trained tokens marked, and what was read.
 * @throws LorikeetError what reading and tokenizing throws
 */
export async function dataPreview(
  options: DataPreviewOptions,
  print: (text: string) => void,
): Promise<void> {
  const { paths, count = 3, limit = Infinity, json = false } = options;
  const rows = firstRows(readDataset(paths), limit);
  const writer = options.writer ?? exampleWriter(spillingWords());
  const { store, report } = await buildDataset(rows, { ...options, writer });
  try {
    const samples: Sample[] = [];
    for (let i = 0; i < Math.min(count, store.count); i++) {
      const pieces = previewPieces(await store.read(i), options.tokenizer);
      samples.push({ tokens: store.lengths[i]!, trainedTokens: store.supervised[i]!, pieces });
    }
    if (json) print(`${JSON.stringify({ report, samples }, null, 2)}\n`);
    else printSamples(samples, report, { color: options.color ?? pc.isColorSupported, print });
  } finally {
    await store.dispose();
  }
}

async function* firstRows(rows: SourceRows, limit: number): SourceRows {
  let count = 0;
  for await (const row of rows) {
    yield row;
    if (++count >= limit) return;
  }
}

function printSamples(
  samples: readonly Sample[],
  report: DataReport,
  { color, print }: { color: boolean; print: (text: string) => void },
): void {
  const { bold, green, dim, yellow } = pc.createColors(color);
  const mark = (text: string): string => (color ? green(text) : `⟦${text}⟧`);
  for (const [i, { tokens, trainedTokens, pieces }] of samples.entries()) {
    print(
      bold(`Sample ${i + 1} of ${report.samples}`) +
        `: ${tokens} tokens, ${trainedTokens} trained\n`,
    );
    const text = pieces.map((piece) => {
      const shown = withoutControls(piece.text);
      return piece.isTrained ? eachLine(shown, mark) : eachLine(shown, dim);
    });
    print(`${text.join("")}\n\n`);
  }
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
