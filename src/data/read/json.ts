import { readLines } from "./lines.ts";
import { type Place, reasonOf, type SourceRow, syntaxFault } from "./source-row.ts";

/**
 * Rows of a JSON file: the elements of its array, or its objects one after the other (JSON Lines named .json).
 * One row is in memory at a time.
 */
export async function* readJson(
  file: string,
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<SourceRow> {
  const splitter = new ElementSplitter(file);
  for await (const line of readLines(file, chunks)) {
    if ("fault" in line) {
      yield line;
      return; // where the row ends can't be told any more
    }
    yield* splitter.push(line.text, line.place.line);
    if (splitter.isBroken) return;
  }
  yield* splitter.end();
}

/** Cuts the text of a JSON file into the texts of its rows, by brackets outside strings alone. */
class ElementSplitter {
  /** Nothing that follows can be read. */
  isBroken = false;
  #kind: "array" | "sequence" | "over" | undefined;
  #place: Place;
  #text = ""; // of the row, up to the current line
  #from = 0; // where the row goes on in the current line
  #isInRow = false;
  #isInString = false;
  #depth = 0;

  constructor(file: string) {
    this.#place = { file, line: 0 };
  }

  push(line: string, number: number): SourceRow[] {
    const rows: SourceRow[] = [];
    this.#from = 0;
    for (let i = 0; i < line.length && !this.isBroken; i++) {
      if (this.#isInString) {
        if (line[i] === "\\") i++;
        else if (line[i] === '"') this.#isInString = false;
        continue;
      }
      const row = this.#structure(line, i, number);
      if (row) rows.push(row);
    }
    if (this.#isInRow) this.#text += `${line.slice(this.#from)}\n`;
    return rows;
  }

  /** What character `i`, outside strings, completes. */
  #structure(line: string, i: number, number: number): SourceRow | undefined {
    const char = line[i]!;
    let row: SourceRow | undefined;
    if (this.#isInRow && this.#depth === 0 && (char === "," || char === "]"))
      row = this.#close(line, i);
    if (!this.#isInRow && !this.#open(char, i, number)) return row;
    if (this.isBroken)
      return syntaxFault(this.#place, `Expected the end of the file after "]", got "${char}"`);
    if (char === '"') this.#isInString = true;
    else if (char === "{" || char === "[") this.#depth++;
    else if (char === "}" || char === "]") {
      this.#depth--;
      if (this.#depth === 0 && this.#kind === "sequence") return this.#close(line, i + 1);
    }
    return row;
  }

  end(): SourceRow[] {
    if (!this.#isInRow && this.#kind !== "array") return [];
    const what = this.#isInRow ? "the end of this value" : 'a "]"';
    return [syntaxFault(this.#place, `Expected ${what}, got the end of the file`)];
  }

  /** Whether a row begins with `char`; commas, white space and the brackets of the file do not. */
  #open(char: string, i: number, number: number): boolean {
    if (/\s/.test(char)) return false;
    if (this.#kind === undefined) {
      this.#kind = char === "[" ? "array" : "sequence";
      this.#place = { ...this.#place, line: number };
      if (char === "[") return false;
    }
    if (this.#kind === "array" && char === ",") return false;
    if (this.#kind === "array" && char === "]") {
      this.#kind = "over";
      return false;
    }
    this.#place = { ...this.#place, line: number };
    this.isBroken = this.#kind === "over";
    this.#isInRow = true;
    this.#from = i;
    return true;
  }

  #close(line: string, end: number): SourceRow {
    const text = this.#text + line.slice(this.#from, end);
    this.#text = "";
    this.#isInRow = false;
    try {
      return { place: this.#place, value: JSON.parse(text) as unknown };
    } catch (cause) {
      return syntaxFault(this.#place, `Expected one JSON value, got: ${reasonOf(cause)}`, cause);
    }
  }
}
