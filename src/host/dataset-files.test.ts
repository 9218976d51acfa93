import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { readJsonl } from "../data/read/jsonl.ts";
import { readPlainText } from "../data/read/text.ts";
import { listFiles, readDataset } from "./dataset-files.ts";

let folder: string;
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), "dataset-"))));
afterAll(() => rmSync(folder, { recursive: true }));

function put(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, content);
  return path;
}

/** Rows as `line: value`, faults as `line! code message`. */
async function rows(paths: string | string[], input?: Readable): Promise<string[]> {
  const out: string[] = [];
  for await (const row of readDataset([paths].flat(), input))
    if ("value" in row) out.push(`${row.place.line}: ${JSON.stringify(row.value)}`);
    else out.push(`${row.place.line}! ${row.fault.code} ${row.fault.message}`);
  return out;
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const item of items) out.push(item);
  return out;
}

const bytes = (...parts: (string | number[])[]): Uint8Array =>
  Buffer.concat(parts.map((part) => Buffer.from(part as string)));

describe("readDataset", () => {
  it("reads JSON Lines: blank lines, CRLF, a byte-order mark, no last line end", async () => {
    const text = '\ufeff{"text":"é"}\r\n\r\n{"text":"\\u2028\\n"}\n"bare"';
    const expected = ['1: {"text":"é"}', '3: {"text":"\u2028\\n"}', '4: "bare"'];
    expect(await rows(put("a.jsonl", text))).toEqual(expected);
    expect(await rows(put("a.ndjson", text))).toEqual(expected);
    expect(await rows(put("a.jsonl.gz", gzipSync(text)))).toEqual(expected);
  });

  it("tells the line and the reason of malformed JSON Lines, and reads on", async () => {
    expect(await rows(put("bad.jsonl", '{"a":1}\n{"a":\n[1,]\n{"a":2} {}\n{"a":3}\n'))).toEqual([
      '1: {"a":1}',
      expect.stringMatching(/^2! data-syntax Expected one JSON value, got: /),
      expect.stringMatching(/^3! data-syntax /),
      expect.stringMatching(/^4! data-syntax /),
      '5: {"a":3}',
    ]);
  });

  it("tells the line and the byte that is not UTF-8", async () => {
    const latin = bytes('{"text":"ok é"}\n{"text":"caf', [0xe9], '"}\n{"text":"b"}\n');
    expect(await rows(put("latin.jsonl", latin))).toEqual([
      '1: {"text":"ok é"}',
      "2! data-encoding Expected UTF-8, got the byte 0xE9 at byte 12",
      '3: {"text":"b"}',
    ]);
    const cut = bytes('{"text":"', [0xe2, 0x82]);
    expect(await rows(put("cut.jsonl", cut))).toEqual([
      expect.stringMatching(/^1! data-encoding .* 0xE2 at byte 9$/),
    ]);
    const wide = put("wide.jsonl", Buffer.from('\ufeff{"text":"a"}', "utf16le"));
    await expect(rows(wide)).rejects.toMatchObject({ code: "data-encoding" });
    const unmarked = put("unmarked.jsonl", Buffer.from('{"text": "a"}\n', "utf16le"));
    await expect(rows(unmarked)).rejects.toMatchObject({ code: "data-encoding" });
  });

  it("reads JSON arrays row by row", async () => {
    const text = '\n [\n{"text": "a]},\\"[{"},\n  {"text":\n   {"b": [1, {}]}}\n, "x,y", 3 ,[4]]\n';
    expect(await rows(put("a.json", text))).toEqual([
      '3: {"text":"a]},\\"[{"}',
      '4: {"text":{"b":[1,{}]}}',
      '6: "x,y"',
      "6: 3",
      "6: [4]",
    ]);
    expect(await rows(put("b.json", '{"a":1}\n{"a":\n2}{"a":3}'))).toEqual([
      '1: {"a":1}',
      '2: {"a":2}',
      '3: {"a":3}',
    ]);
  });

  it.each([
    ["[", '1! data-syntax Expected a "]", got the end of the file'],
    ['[{"a":1},\n{"a"', "2! data-syntax Expected the end of this value, got the end of the file"],
    ['[{"a":"\n"}]', "1! data-syntax Expected one JSON value, got: "],
    ["[1] 2", '1! data-syntax Expected the end of the file after "]", got "2"'],
    ['{"a":1', "1! data-syntax Expected the end of this value, got the end of the file"],
  ])("tells what is wrong with the JSON %j", async (text, expected) => {
    expect((await rows(put("bad.json", text))).at(-1)).toContain(expected);
  });

  it("reads the same rows however the bytes are cut", async () => {
    const text = bytes('{"text":"日本語 😀"}\r\n\n{"text":"b"}\n');
    const read = async (size: number): Promise<unknown[]> => {
      async function* chunks(): AsyncGenerator<Uint8Array> {
        for (let i = 0; i < text.length; i += size) yield text.subarray(i, i + size);
      }
      return all(readJsonl("x", chunks()));
    };
    const whole = await read(text.length);
    expect(whole).toHaveLength(2);
    for (const size of [1, 2, 3, 5, 7]) expect(await read(size)).toEqual(whole);
  });

  it("reads CSV and TSV with quoted line ends", async () => {
    const text = 'prompt,completion\n"a ""b"", c","d\r\ne"\n\nf,\n';
    const expected = [
      '2: {"prompt":"a \\"b\\", c","completion":"d\\ne"}',
      '5: {"prompt":"f","completion":""}',
    ];
    expect(await rows(put("a.csv", text))).toEqual(expected);
    expect(await rows(put("a.csv.gz", gzipSync(text)))).toEqual(expected);
    const long = "x".repeat(300_000);
    expect(await rows(put("a.tsv", `text\tid\n${long}\t1\n`))).toEqual([
      `2: {"text":"${long}","id":"1"}`,
    ]);
  });

  it("reads CSV whose lines end in CR", async () => {
    const expected = ['2: {"a":"1","b":"x\\ny"}', '4: {"a":"3","b":"4"}'];
    for (const end of ["", "\r"])
      expect(await rows(put("cr.csv", `a,b\r1,"x\ry"\r3,4${end}`))).toEqual(expected);
  });

  it("names a column that stands twice, and tells a header without rows", async () => {
    const twice = ["1! data-syntax Expected each column once in the header, got text twice"];
    for (const text of ["text,id,text\na,1,b\nc\n", "text,text\n"])
      expect(await rows(put("twice.csv", text))).toEqual(twice);
    for (const text of ["text,label\n", "text"])
      expect(await rows(put("bare.csv", text))).toEqual([
        "1! data-empty Expected rows, got a header and no rows after it",
      ]);
    expect(await rows(put("none.csv", ""))).toEqual([
      "0! data-empty Expected rows, got an empty file",
    ]);
  });

  it("tells the lines of malformed CSV, and reads on", async () => {
    expect(await rows(put("bad.csv", 'a,b\n1,2\n3,4,5\n6"7,8\n9,10\n"open,11\n'))).toEqual([
      '2: {"a":"1","b":"2"}',
      expect.stringMatching(/^3! data-syntax .*columns length is 2, got 3/),
      expect.stringMatching(/^4! data-syntax .*quote is found/),
      '5: {"a":"9","b":"10"}',
      expect.stringMatching(/^6! data-syntax .*Quote Not Closed/),
    ]);
    expect(await rows(put("latin.csv", bytes("a,b\n1,2\n", [0xff], ",3\n")))).toEqual([
      '2: {"a":"1","b":"2"}',
      expect.stringMatching(/^3! data-encoding .* 0xFF at byte 0$/),
    ]);
  });

  it("reads Parquet in every compression, row group by row group", async () => {
    const parquet = readFileSync(new URL("../data/fixtures/chats.parquet", import.meta.url));
    const read = await rows(put("a.parquet", parquet));
    expect(read).toHaveLength(5);
    expect(read[4]).toBe(
      `5: ${JSON.stringify({
        messages: [
          { role: "user", content: "Question 4: wo ist Zürich? 😀", name: null },
          { role: "assistant", content: `Answer 4.\n${"x".repeat(160)}`, name: null },
        ],
        id: 2 ** 40 + 4,
        source: "made",
        score: 1,
      })}`,
    );
    for (const cut of [parquet.subarray(0, 700), parquet.subarray(500), Buffer.from("no parquet")])
      expect(await rows(put("bad.parquet", cut))).toEqual([
        expect.stringMatching(/^0! data-syntax Expected a whole Parquet file, got: /),
      ]);
  });

  it("reads text as one document in pieces cut at blank lines", async () => {
    const text = "one\ntwo\n\nthree\nfour\n\n\nfive\n";
    const read = (length: number): Promise<unknown[]> =>
      all(readPlainText("x", Readable.from([Buffer.from(text)]), length));
    expect(await read(100)).toEqual([
      { place: { file: "x", line: 1 }, value: { text: text.slice(0, -1) } },
    ]);
    expect(await read(12)).toEqual([
      { place: { file: "x", line: 1 }, value: { text: "one\ntwo\n\n", continues: true } },
      { place: { file: "x", line: 4 }, value: { text: "three\nfour\n\n", continues: true } },
      { place: { file: "x", line: 7 }, value: { text: "\nfive" } },
    ]);
    expect(await rows(put("a.txt", "a\r\nb"))).toEqual(['1: {"text":"a\\nb"}']);
  });

  it("reads folders in the order of their names, and several paths", async () => {
    put("tree/b.jsonl", '"b"\n');
    put("tree/a/z.txt", "z");
    put("tree/README.md", "no data");
    put("tree/.hidden/c.jsonl", '"c"\n');
    put("tree/a.csv", "text\na\n");
    const tree = join(folder, "tree");
    expect(await rows(tree)).toEqual(['2: {"text":"a"}', '1: {"text":"z"}', '1: "b"']);
    expect(await rows([join(tree, "b.jsonl"), join(tree, "a.csv")])).toEqual([
      '1: "b"',
      '2: {"text":"a"}',
    ]);
    expect(await listFiles(tree)).toHaveLength(3);
  });

  it.each([
    ['\n {"text":"a"}\n{"text":"b"}\n', ['2: {"text":"a"}', '3: {"text":"b"}']],
    ['[{"text":"a"}]', ['1: {"text":"a"}']],
    ["Once upon\na time", ['1: {"text":"Once upon\\na time"}']],
    ["", ["0! data-empty Expected rows, got an empty file"]],
    ['"prompt","completion"\r\n"a, b","c"\r\n', ['2: {"prompt":"a, b","completion":"c"}']],
    ["instruction\toutput\na\tb\n", ['2: {"instruction":"a","output":"b"}']],
    ['text\r\n"a, b"\r\nc\r\n', ['2: {"text":"a, b"}', '3: {"text":"c"}']],
    ["label,text\n1,a\n", ['2: {"label":"1","text":"a"}']],
    ["text", ['1: {"text":"text"}']],
    ["text, that goes on\nhere", ['1: {"text":"text, that goes on\\nhere"}']],
  ])("reads the stream %j for -", async (text, expected) => {
    const pieces = Array.from(text, (char) => Buffer.from(char));
    expect(await rows("-", Readable.from(pieces))).toEqual(expected);
  });

  it("reads Parquet in a stream by way of a temporary file, and leaves none", async () => {
    const parquet = readFileSync(new URL("../data/fixtures/chats.parquet", import.meta.url));
    const temporary = mkdtempSync(join(folder, "tmp-"));
    vi.stubEnv("TMPDIR", temporary);
    const pieces = (data: Buffer): Readable =>
      Readable.from(Array.from({ length: 100 }, (_, i) => data.subarray(70 * i, i < 99 ? 70 * (i + 1) : undefined))); // prettier-ignore
    expect(await rows("-", pieces(parquet))).toEqual(await rows(put("a.parquet", parquet)));
    expect(await rows("-", pieces(parquet.subarray(0, 700)))).toEqual([
      expect.stringMatching(/^0! data-syntax Expected a whole Parquet file, got: /),
    ]);
    for await (const { place } of readDataset(["-"], pieces(parquet))) {
      expect(place).toEqual({ file: "stdin", line: 1 });
      break;
    }
    const broken = Readable.from(
      (function* () {
        yield parquet.subarray(0, 700);
        throw new Error("the pipe broke");
      })(),
    );
    await expect(rows("-", broken)).rejects.toThrow("the pipe broke");
    expect(readdirSync(temporary)).toEqual([]);
    vi.stubEnv("TMPDIR", join(temporary, "nowhere"));
    await expect(rows("-", pieces(parquet))).rejects.toMatchObject({ code: "file-not-found" });
    vi.unstubAllEnvs();
  });

  it("closes a stream that is not read to its end", async () => {
    const input = Readable.from([Buffer.from('{"text":"a"}\n'), Buffer.from('{"text":"b"}\n')]);
    for await (const row of readDataset(["-"], input)) {
      expect(row).toHaveProperty("value");
      break;
    }
    expect(input.destroyed).toBe(true);
  });

  it("tells of empty files, cut-off gzip and unknown kinds", async () => {
    for (const name of ["e.jsonl", "e.json", "e.csv", "e.txt"])
      expect(await rows(put(name, " \n\n"))).toEqual([
        "0! data-empty Expected rows, got an empty file",
      ]);
    const zipped = gzipSync('{"text":"a"}\n'.repeat(2000));
    expect((await rows(put("cut.jsonl.gz", zipped.subarray(0, 60)))).at(-1)).toMatch(
      /^0! data-syntax Expected a whole gzip file, got: unexpected end of file/,
    );
    expect(await rows(put("not.jsonl.gz", '{"text":"a"}\n'))).toEqual([
      expect.stringMatching(/^0! data-syntax Expected a whole gzip file/),
    ]);
    await expect(rows(put("a.docx", "x"))).rejects.toMatchObject({ code: "data-kind" });
    mkdirSync(join(folder, "none"), { recursive: true });
    await expect(rows(join(folder, "none"))).rejects.toMatchObject({ code: "data-kind" });
  });

  it("suggests files of similar names for one that is not there", async () => {
    put("near/chats.jsonl", '"a"\n');
    await expect(rows(join(folder, "near/chat.jsonl"))).rejects.toMatchObject({
      code: "file-not-found",
      hint: `Did you mean ${join(folder, "near/chats.jsonl")}?`,
    });
    put("near/other.json", "[]");
    put("near/chats.md", "");
    await expect(rows(join(folder, "near/wrong.jsonl"))).rejects.toMatchObject({
      hint: "Check the path.",
    });
    await expect(rows(join(folder, "nowhere/a.jsonl"))).rejects.toMatchObject({
      code: "file-not-found",
    });
  });
});
