import { mkdtemp, readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { crc32c, maskedCrc32c } from "./crc32c.ts";
import { openTensorBoard } from "./tensorboard.ts";

test("crc32c has the values of RFC 3720", () => {
  expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
  expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
  expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
  expect(crc32c(new TextEncoder().encode("123456789"))).toBe(0xe3069283);
});

test("an event file is a sequence of checked records: version, start, scalars", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lorikeet-tensorboard-"));
  const file = await openTensorBoard(folder, 299);
  await file.append(300, { "train/loss": 1.5 });
  await file.close();
  const [name = ""] = await readdir(folder);
  expect(name).toMatch(/^events\.out\.tfevents\.\d+\..*\.lorikeet$/);

  const records = split(await readFile(join(folder, name)));
  expect(records).toHaveLength(3);
  expect(records[0]!.subarray(9)).toEqual(Buffer.from("\x1a\x0dbrain.Event:2", "latin1"));
  // step 300 as a varint; a session that starts there, so that TensorBoard forgets what was after it
  expect(records[1]!.subarray(9).toString("hex")).toBe("10ac02" + "3a02" + "0801");
  // the same step; a summary with one value: tag and 1.5 as a float
  const expected = "10ac022a13" + "0a11" + "0a0a" + hex("train/loss") + "150000c03f";
  expect(records[2]!.subarray(9).toString("hex")).toBe(expected);
});

function hex(text: string): string {
  return Buffer.from(text).toString("hex");
}

function split(file: Buffer): Buffer[] {
  const records: Buffer[] = [];
  for (let at = 0; at < file.length;) {
    const length = Number(file.readBigUInt64LE(at));
    expect(file.readUInt32LE(at + 8)).toBe(maskedCrc32c(file.subarray(at, at + 8)));
    const message = file.subarray(at + 12, at + 12 + length);
    expect(file.readUInt32LE(at + 12 + length)).toBe(maskedCrc32c(message));
    records.push(message);
    at += length + 16;
  }
  return records;
}
