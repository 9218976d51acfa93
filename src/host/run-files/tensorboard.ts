import { type FileHandle, open } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { asFileError } from "../file-errors.ts";
import { makeFolder } from "../files.ts";
import { maskedCrc32c } from "./crc32c.ts";

/** A TensorBoard event file. */
export interface TensorBoardFile {
  /** Adds one point to the curve of each name of `scalars`. */
  append(step: number, scalars: Readonly<Record<string, number>>): Promise<void>;
  close(): Promise<void>;
}

/**
 * Opens a new event file in `folder`; TensorBoard joins the files of a folder, so a resumed run adds one, and forgets
 * what earlier files say of steps after `resumeFrom`, which are made again.
 * Format: TFRecords of tensorflow.Event.
 * https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto
 * @throws LorikeetError `disk-full`, `read-only`, `permission-denied`
 */
export async function openTensorBoard(folder: string, resumeFrom = -1): Promise<TensorBoardFile> {
  const seconds = Date.now() / 1000;
  const name = `events.out.tfevents.${Math.floor(seconds)}.${hostname()}.${process.pid}.lorikeet`;
  const path = join(folder, name);
  try {
    await makeFolder(folder);
    const handle = await open(path, "a");
    await append(handle, path, [...double(1, seconds), ...text(3, "brain.Event:2")]);
    const start = bytes(7, varint(1, 1)); // session_log, status START
    await append(handle, path, [...double(1, seconds), ...varint(2, resumeFrom + 1), ...start]);
    return {
      append: (step, scalars) => append(handle, path, scalarEvent(step, scalars)),
      close: () => handle.close(),
    };
  } catch (cause) {
    throw asFileError(cause, path, "written");
  }
}

function scalarEvent(step: number, scalars: Readonly<Record<string, number>>): number[] {
  const summary = Object.entries(scalars).flatMap(([tag, value]) =>
    bytes(1, [...text(1, tag), ...float(2, value)]),
  );
  return [...double(1, Date.now() / 1000), ...varint(2, step), ...bytes(5, summary)];
}

/** A TFRecord: length (u64), its masked CRC, the message, its masked CRC; all little endian. */
async function append(handle: FileHandle, path: string, message: number[]): Promise<void> {
  const record = new Uint8Array(message.length + 16);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(message.length), true);
  view.setUint32(8, maskedCrc32c(record.subarray(0, 8)), true);
  record.set(message, 12);
  const end = 12 + message.length;
  view.setUint32(end, maskedCrc32c(record.subarray(12, end)), true);
  try {
    await handle.appendFile(record);
  } catch (cause) {
    throw asFileError(cause, path, "written");
  }
}

// protobuf fields: a tag (number · 8 + wire type), then the value. https://protobuf.dev/programming-guides/encoding/

function double(field: number, value: number): number[] {
  return [field * 8 + 1, ...new Uint8Array(new Float64Array([value]).buffer)];
}

function float(field: number, value: number): number[] {
  return [field * 8 + 5, ...new Uint8Array(new Float32Array([value]).buffer)];
}

function varint(field: number, value: number): number[] {
  return [field * 8, ...base128(value)];
}

function bytes(field: number, content: readonly number[]): number[] {
  return [field * 8 + 2, ...base128(content.length), ...content];
}

function text(field: number, content: string): number[] {
  return bytes(field, [...new TextEncoder().encode(content)]);
}

function base128(value: number): number[] {
  const out: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) out.push((rest % 128) + 128);
  return [...out, rest];
}
