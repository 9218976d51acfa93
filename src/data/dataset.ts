import { LorikeetError } from "../errors.ts";
import { faultsError } from "../formats/faults.ts";
import { type DataWarning, dataWarnings } from "./data-warnings.ts";
import { exampleWriter, type ExampleStore, type ExampleWriter } from "./example-store.ts";
import { type ExampleOptions, examplesOf, supervisedTokens } from "./examples.ts";
import { formatPlace, type Place, type SourceRow, type SourceRows } from "./read/source-row.ts";
import { parseRow, type RowFormat } from "./rows.ts";
import type { ChatTemplate } from "./chat-template.ts";
import type { ChatRow, Row } from "./rows/row.ts";
import { rowKey, type Split, splitByKey } from "./validation-split.ts";

/** How a data set is made of rows. */
export interface DatasetOptions extends ExampleOptions {
  /** Tokens that the model can see; longer samples are cut to it. */
  readonly contextLength?: number | undefined;
  /** The format of all rows; undefined: told from the columns of each. */
  readonly format?: RowFormat | undefined;
  /** Whether bad rows are counted and left out instead of stopping. */
  readonly skipBadRows?: boolean;
  /** Share of the samples that is held out. Default 0. */
  readonly validationFraction?: number;
  /** Decides which are. */
  readonly seed?: number;
  /** Where samples are kept. Default: in memory. */
  readonly writer?: ExampleWriter;
  /** Told now and then how many rows are done. */
  readonly onProgress?: (rows: number) => void;
}

/** What was read, and what was left out. */
export interface DataReport {
  readonly rows: number;
  readonly badRows: number;
  /** Rows without a token to train, left out. */
  readonly untrainedRows: number;
  /** Rows longer than the longest sample, and the tokens cut off them. */
  readonly cutRows: number;
  readonly cutTokens: number;
  readonly samples: number;
  readonly tokens: number;
  readonly supervisedTokens: number;
  readonly longest: number;
  /** What the user should see. */
  readonly warnings: readonly DataWarning[];
}

/** Samples ready to be batched. */
export interface Dataset extends Split {
  readonly store: ExampleStore;
  readonly report: DataReport;
}

/** Bad rows that are listed before reading stops. */
const LISTED = 20;
/** Rows after which timers and signals get their turn: some 20 ms. */
const TURN = 32;

/**
 * Reads, tokenizes and keeps all rows.
 * @throws LorikeetError `data-rows` (or the code of the only fault) listing bad rows with file, line and reason;
 * `data-empty`, `data-unsupervised`, `data-split`, and what the reader throws
 */
export async function buildDataset(rows: SourceRows, options: DatasetOptions): Promise<Dataset> {
  const maxLength = Math.min(options.maxLength, options.contextLength ?? Infinity);
  const tally = new Tally({ ...options, maxLength });
  for await (const source of rows) {
    await tally.add(source);
    if (tally.rows % TURN === 0) {
      options.onProgress?.(tally.rows);
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
  options.onProgress?.(tally.rows);
  const { store, report } = await tally.finish(options.maxLength);
  return { ...splitByKey(store.keys, options.validationFraction ?? 0), store, report };
}

/** Counts while rows become samples. */
class Tally {
  rows = 0;
  readonly #options: DatasetOptions;
  readonly #writer: ExampleWriter;
  readonly #faults: PlacedFault[] = [];
  #badRows = 0;
  #untrainedRows = 0;
  #cutRows = 0;
  #cutTokens = 0;
  #lostAnswers = 0;
  #hiddenTools = 0;
  #hasChats = false;

  constructor(options: DatasetOptions) {
    this.#options = options;
    this.#writer = options.writer ?? exampleWriter();
  }

  async add(source: SourceRow): Promise<void> {
    this.rows++;
    try {
      if ("fault" in source) throw source.fault;
      await this.#addRow(parseRow(source.value, this.#options.format), source.place);
    } catch (fault) {
      if (!(fault instanceof LorikeetError)) throw fault;
      this.#badRows++;
      if (this.#faults.length < LISTED) this.#faults.push({ place: source.place, fault });
      if (!this.#options.skipBadRows && this.#faults.length === LISTED) throw this.#faultsError();
    }
  }

  async #addRow(row: Row, place: Place): Promise<void> {
    const { examples, cutTokens } = examplesOf(row, this.#options);
    const trained = examples.filter((example) => supervisedTokens(example) > 0);
    this.#hasChats ||= row.kind === "chat";
    if (row.kind === "chat" && hidesTools(this.#options.template, row)) this.#hiddenTools++;
    if (cutTokens > 0) this.#cutRows++;
    this.#cutTokens += cutTokens;
    if (trained.length === 0) {
      this.#untrainedRows++;
      if (cutTokens > 0) this.#lostAnswers++;
    }
    const key = rowKey(row, this.#options.seed ?? 0);
    for (const example of trained) await this.#writer.append(example, key, place);
  }

  async finish(askedLength: number): Promise<{ store: ExampleStore; report: DataReport }> {
    if (this.#badRows > 0 && !this.#options.skipBadRows) throw this.#faultsError();
    if (this.rows === this.#badRows) throw this.#emptyError();
    const store = await this.#writer.finish();
    if (store.count === 0) throw this.#unsupervisedError();
    const sum = (counts: Uint32Array): number => counts.reduce((a, b) => a + b, 0);
    return {
      store,
      report: {
        rows: this.rows,
        badRows: this.#badRows,
        untrainedRows: this.#untrainedRows,
        cutRows: this.#cutRows,
        cutTokens: this.#cutTokens,
        samples: store.count,
        tokens: sum(store.lengths),
        supervisedTokens: sum(store.supervised),
        longest: store.lengths.reduce((a, b) => Math.max(a, b), 0),
        warnings: this.#warnings(askedLength),
      },
    };
  }

  #warnings(askedLength: number): DataWarning[] {
    const { maxLength, template } = this.#options;
    return dataWarnings({
      rows: this.rows,
      badRows: this.#badRows,
      firstFaults: this.#faults.slice(0, 3).map(describeFault),
      untrainedRows: this.#untrainedRows,
      lostAnswers: this.#lostAnswers,
      cutRows: this.#cutRows,
      cutTokens: this.#cutTokens,
      hiddenTools: this.#hiddenTools,
      askedLength,
      maxLength,
      usesDefaultTemplate: this.#hasChats && template.isDefault,
    });
  }

  #faultsError(): LorikeetError {
    const [first] = this.#faults as [PlacedFault];
    const { fault } = first;
    const hint = fault.hint ?? "Correct the row, or leave it out with --skip-bad-rows.";
    if (this.#faults.length === 1)
      return new LorikeetError(fault.code, describeFault(first), { hint, cause: fault });
    const faults = this.#faults.map(describeFault);
    const stopped = faults.length === LISTED ? " Reading stopped after these." : "";
    const advice = "Correct these rows, or leave them out with --skip-bad-rows.";
    return faultsError("data-rows", "rows that can be trained on", faults, advice + stopped);
  }

  #emptyError(): LorikeetError {
    const reasons = this.#faults.slice(0, 3).map(describeFault);
    const got = reasons.length === 0 ? "none" : `only bad ones: ${reasons.join("; ")}`;
    return new LorikeetError("data-empty", `Expected rows to train on, got ${got}`, {
      hint: "Check that the path names the data that you mean.",
    });
  }

  #unsupervisedError(): LorikeetError {
    const { trainOn, maxLength } = this.#options;
    const good = this.rows - this.#badRows;
    return new LorikeetError(
      "data-unsupervised",
      `Expected tokens to train on (train_on: ${trainOn}), got none in ${good} rows`,
      {
        hint:
          this.#lostAnswers > 0
            ? `In ${this.#lostAnswers} rows the answers begin after max_length (${maxLength}): raise it, or shorten the prompts.`
            : "Chats need turns of the assistant. See what is trained with lorikeet data preview.",
      },
    );
  }
}

/** Whether the row has tools, or calls some, that `template` has no word for. */
function hidesTools({ source }: ChatTemplate, { messages, tools }: ChatRow): boolean {
  const hasCalls = messages.some((message) => message.tool_calls !== undefined);
  return (
    (tools !== undefined && !/\btools\b/.test(source)) ||
    (hasCalls && !source.includes("tool_calls"))
  );
}

interface PlacedFault {
  readonly place: Place;
  readonly fault: LorikeetError;
}

function describeFault({ place, fault }: PlacedFault): string {
  return `${formatPlace(place)}: ${fault.message}`;
}
