/** @file As much of a WebAssembly assembler as one loop over 128-bit vectors needs. https://webassembly.github.io/spec/core/binary/ */

/** Instructions as bytes. */
export type Code = readonly number[];

/** What is used of it; the types of Node.js leave it out. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: Record<string, unknown> };
};

const [F32, I32, V128] = [0x7d, 0x7f, 0x7b];
const PAGE = 65536;

/** An unsigned number, seven bits a byte. */
const leb = (value: number): Code =>
  value < 128 ? [value] : [(value & 127) | 128, ...leb(value >>> 7)];
const list = (items: readonly Code[]): Code => [...leb(items.length), ...items.flat()];
const sized = (code: Code): Code => [...leb(code.length), ...code];
const section = (id: number, items: readonly Code[]): Code => [id, ...sized(list(items))];
const text = (value: string): Code => sized([...new TextEncoder().encode(value)]);
const vector = (op: number): Code => [0xfd, ...leb(op)];

/** The value of a local variable. */
export const get = (local: number): Code => [0x20, local];
/** Sets a local variable to `value`. */
export const set = (local: number, value: Code): Code => [...value, 0x21, local];
/** Four f32 at the address in `local`, plus `offset` bytes. */
export const load = (local: number, offset: number): Code => [
  ...get(local),
  ...vector(0x00),
  ...[2, ...leb(offset)],
];
/** Stores four f32 there. */
export const store = (local: number, offset: number, value: Code): Code => [
  ...get(local),
  ...value,
  ...vector(0x0b),
  ...[2, ...leb(offset)],
];
/** A number four times. */
export const splat = (value: Code): Code => [...value, ...vector(0x13)];
/** Root of each of four f32. */
export const sqrt = (value: Code): Code => [...value, ...vector(0xe3)];
const binary =
  (op: number) =>
  (a: Code, b: Code): Code => [...a, ...b, ...vector(op)];
export const add: (a: Code, b: Code) => Code = binary(0xe4);
export const sub: (a: Code, b: Code) => Code = binary(0xe5);
export const mul: (a: Code, b: Code) => Code = binary(0xe6);
export const div: (a: Code, b: Code) => Code = binary(0xe7);

/** Repeats `body` for each 16 bytes: local `at` counts from 0 to local `end`, which is at least 16. */
export const loop = (at: number, end: number, body: Code): Code => [
  ...[0x03, 0x40, ...body],
  ...[...get(at), 0x41, 16, 0x6a, 0x22, at], // at += 16
  ...[...get(end), 0x48, 0x0d, 0], // again while at < end
  0x0b,
];

/**
 * A function `run(end, ...numbers)` of one i32 and `numbers` f32 parameters (locals 0 …), then one i32 local for a
 * loop and `vectors` of four f32; with a memory of at least `bytes`.
 */
export function assemble(
  body: Code,
  { numbers, vectors, bytes }: { numbers: number; vectors: number; bytes: number },
): { run: (end: number, ...numbers: number[]) => void; memory: ArrayBuffer } {
  const parameters: Code[] = [[I32], ...Array.from({ length: numbers }, () => [F32])];
  const code = [...list([[1, I32], [vectors, V128]]), ...body, 0x0b]; // prettier-ignore
  const module = Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [[0x60, ...list(parameters), 0]]),
    ...section(3, [[0]]),
    ...section(5, [[0, ...leb(Math.ceil(bytes / PAGE))]]),
    ...section(7, [
      [...text("run"), 0, 0],
      [...text("memory"), 2, 0],
    ]),
    ...section(10, [sized(code)]),
  ]);
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module));
  const { buffer } = exports["memory"] as { buffer: ArrayBuffer };
  return { run: exports["run"] as (...values: number[]) => void, memory: buffer };
}
