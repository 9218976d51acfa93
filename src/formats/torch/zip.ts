import { LorikeetError } from "../../errors.ts";
import type { ByteSource } from "../byte-source.ts";

/** A file inside an archive, stored without compression. */
export interface ZipEntry {
  /** Where its local header starts. */
  readonly headerOffset: number;
  readonly length: number;
}

const END = 0x06054b50;
const END64_LOCATOR = 0x07064b50;
const END64 = 0x06064b50;
const ENTRY = 0x02014b50;
const LOCAL = 0x04034b50;
const FULL32 = 0xffffffff;

/**
 * Entries of a zip archive by name, from its central directory.
 * https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
 * @throws LorikeetError `corrupt-zip`; also for compressed or encrypted entries, which torch never writes
 */
export async function readZipDirectory(source: ByteSource): Promise<ReadonlyMap<string, ZipEntry>> {
  const { offset, size, count } = await findDirectory(source);
  if (offset + size > source.size) throw corrupt(source, "its directory lies beyond its end");
  const bytes = await source.read(offset, size);
  const view = viewOf(bytes);
  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + 46 > size || view.getUint32(at, true) !== ENTRY)
      throw corrupt(source, `its directory has no entry ${i + 1} of ${count}`);
    const nameLength = view.getUint16(at + 28, true);
    const extraLength = view.getUint16(at + 30, true);
    const next = at + 46 + nameLength + extraLength + view.getUint16(at + 32, true);
    if (next > size) throw corrupt(source, "its directory is cut off");
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
    const extra = bytes.subarray(at + 46 + nameLength, at + 46 + nameLength + extraLength);
    const isPlain = view.getUint16(at + 10, true) === 0 && (view.getUint16(at + 8, true) & 1) === 0;
    if (!isPlain) throw corrupt(source, `${JSON.stringify(name)} is compressed or encrypted`);
    if (entries.has(name)) throw corrupt(source, `${JSON.stringify(name)} occurs twice`);
    entries.set(name, sizesOf(view, at, extra));
    at = next;
  }
  return entries;
}

/** Where the bytes of `entry` start. @throws LorikeetError `corrupt-zip` */
export async function zipDataOffset(source: ByteSource, entry: ZipEntry): Promise<number> {
  const { headerOffset, length } = entry;
  if (headerOffset + 30 > source.size) throw corrupt(source, "an entry lies beyond its end");
  const view = viewOf(await source.read(headerOffset, 30));
  if (view.getUint32(0, true) !== LOCAL) throw corrupt(source, "an entry has no header");
  const start = headerOffset + 30 + view.getUint16(26, true) + view.getUint16(28, true);
  if (start + length > source.size) throw corrupt(source, "an entry lies beyond its end");
  return start;
}

interface Directory {
  readonly offset: number;
  readonly size: number;
  readonly count: number;
}

async function findDirectory(source: ByteSource): Promise<Directory> {
  // the record is 22 bytes, and a comment of up to 65 535 may follow it
  const tail = Math.min(source.size, 22 + 65535);
  const start = source.size - tail;
  const view = viewOf(await source.read(start, tail));
  let at = tail - 22;
  while (at >= 0 && view.getUint32(at, true) !== END) at--;
  if (at < 0) throw corrupt(source, "it has no directory; its end is missing");
  const count = view.getUint16(at + 10, true);
  const size = view.getUint32(at + 12, true);
  const offset = view.getUint32(at + 16, true);
  const isLarge = count === 0xffff || size === FULL32 || offset === FULL32;
  if (!isLarge || at < 20 || view.getUint32(at - 20, true) !== END64_LOCATOR)
    return { count, size, offset };
  const at64 = Number(view.getBigUint64(at - 12, true));
  if (at64 + 56 > source.size) throw corrupt(source, "its directory lies beyond its end");
  const large = viewOf(await source.read(at64, 56));
  if (large.getUint32(0, true) !== END64) throw corrupt(source, "its directory is missing");
  return {
    count: Number(large.getBigUint64(32, true)),
    size: Number(large.getBigUint64(40, true)),
    offset: Number(large.getBigUint64(48, true)),
  };
}

/** Size and place of the directory entry at `at`; those that 32 bits cannot hold are in extra field 1. */
function sizesOf(view: DataView, at: number, extra: Uint8Array): ZipEntry {
  let length = view.getUint32(at + 24, true);
  let headerOffset = view.getUint32(at + 42, true);
  const fields = viewOf(extra);
  for (let p = 0; p + 4 <= extra.length; p += 4 + fields.getUint16(p + 2, true)) {
    if (fields.getUint16(p, true) !== 1) continue;
    let value = p + 4;
    const take = (): number => {
      const number = value + 8 <= extra.length ? Number(fields.getBigUint64(value, true)) : NaN;
      value += 8;
      return number;
    };
    if (length === FULL32) length = take();
    if (view.getUint32(at + 20, true) === FULL32) value += 8;
    if (headerOffset === FULL32) headerOffset = take();
  }
  return { headerOffset, length };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function corrupt(source: ByteSource, fault: string): LorikeetError {
  return new LorikeetError(
    "corrupt-zip",
    `Expected ${source.name} to be a zip archive of torch.save, but ${fault}`,
    {
      hint: "Fetch the file again, or save it anew with torch.save or, better, as safetensors.",
    },
  );
}
