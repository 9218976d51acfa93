import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { LorikeetError } from "../errors.ts";
import { tensor } from "../tensor/tensor.ts";
import { decodeSafetensors } from "./safetensors.ts";
import { encodeSafetensors, planSafetensors, serializeSafetensors } from "./safetensors-write.ts";

function file(header: unknown, data = 0, length?: bigint): Uint8Array {
  const json = new TextEncoder().encode(
    typeof header === "string" ? header : JSON.stringify(header),
  );
  const bytes = new Uint8Array(8 + json.length + data);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

async function failure(bytes: Uint8Array): Promise<LorikeetError> {
  const error = await decodeSafetensors(bytes, "x.safetensors").then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(LorikeetError);
  return error as LorikeetError;
}

const f32 = (shape: number[], from: number, to: number): object => {
  return { dtype: "F32", shape, data_offsets: [from, to] };
};

describe("reading", () => {
  test("tensors, metadata and an empty tensor", async () => {
    const bytes = file({ __metadata__: { format: "pt" }, a: f32([2], 0, 8), e: f32([0, 3], 8, 8) }, 8); // prettier-ignore
    new DataView(bytes.buffer).setFloat32(bytes.length - 4, 1.5, true);
    const { metadata, tensors } = await decodeSafetensors(bytes);
    expect(metadata).toEqual({ format: "pt" });
    expect(tensors.get("a")).toEqual(tensor("f32", [2], Float32Array.of(0, 1.5)));
    expect(tensors.get("e")).toEqual(tensor("f32", [0, 3]));
  });

  test("metadata of null, as mlx writes it, is none", async () => {
    const { metadata, tensors } = await decodeSafetensors(file({ __metadata__: null, a: f32([2], 0, 8) }, 8)); // prettier-ignore
    expect(metadata).toBeUndefined();
    expect([...tensors.keys()]).toEqual(["a"]);
  });

  test.each([0, 1, 2, 3])(
    "tensors %d bytes off their alignment, in a Buffer as files are read",
    async (off) => {
      const header = JSON.stringify({ a: f32([2], 0, 8) });
      const bytes = file(header + " ".repeat((off - header.length) & 3), 8);
      new DataView(bytes.buffer).setFloat32(bytes.length - 4, 1.5, true);
      const { tensors } = await decodeSafetensors(Buffer.from(bytes.buffer));
      expect(tensors.get("a")).toEqual(tensor("f32", [2], Float32Array.of(0, 1.5)));
    },
  );

  test("a tensor called __proto__ is an ordinary tensor", async () => {
    const { tensors } = await decodeSafetensors(
      file('{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1),
    );
    expect([...tensors.keys()]).toEqual(["__proto__"]);
  });

  test.each<[string, Uint8Array, string, RegExp]>([
    ["nothing", new Uint8Array(0), "truncated-file", /at least 8 bytes, got 0/],
    ["half a length", new Uint8Array(5), "truncated-file", /got 5: 3 bytes are missing/],
    ["header of 2^60 bytes", file("{}", 0, 1n << 60n), "corrupt-safetensors", /1152921504606846976/],
    ["header of 2^64-1 bytes", file("{}", 0, (1n << 64n) - 1n), "corrupt-safetensors", /limit/],
    ["header longer than the file", file("{}", 0, 500n), "truncated-file", /508 bytes, got 10/],
    ["no JSON", file("{a}"), "corrupt-safetensors", /not JSON/],
    ["no UTF-8", file("{}", 2, 4n), "corrupt-safetensors", /not JSON/],
    ["JSON that is no object", file("[]"), "corrupt-safetensors", /not a JSON object/],
    ["deep nesting", file("[".repeat(200_000)), "corrupt-safetensors", /not JSON/],
    ["duplicate tensor", file('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1), "corrupt-safetensors", /key "a" occurs twice/],
    ["duplicate field", file('{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', 1), "corrupt-safetensors", /key "a.dtype" occurs twice/],
    ["overlap", file({ a: f32([2], 0, 8), b: f32([1], 4, 8) }, 8), "corrupt-safetensors", /"b" overlaps tensor "a" by 4 bytes/],
    ["gap", file({ a: f32([1], 0, 4), b: f32([1], 8, 12) }, 12), "corrupt-safetensors", /4 unused bytes lie between tensor "a" and tensor "b"/],
    ["gap at the start", file({ a: f32([1], 4, 8) }, 8), "corrupt-safetensors", /between the header and tensor "a"/],
    ["bytes at the end", file({ a: f32([1], 0, 4) }, 7), "corrupt-safetensors", /3 bytes follow/],
    ["data cut off", file({ a: f32([2], 0, 8) }, 5), "truncated-file", /3 bytes are missing/],
    ["offsets out of range", file({ a: f32([2 ** 50], 0, 2 ** 52) }, 5), "truncated-file", /4503599627370/],
    ["shape and length disagree", file({ a: f32([3], 0, 8) }, 8), "corrupt-safetensors", /\[3\] needs 12 bytes, its data_offsets give 8/],
    ["shape that overflows", file({ a: f32([2 ** 40, 2 ** 40], 0, 8) }, 8), "corrupt-safetensors", /give 8/],
    ["negative size", file({ a: f32([-1], 0, 4) }, 4), "corrupt-safetensors", /no valid shape/],
    ["offsets reversed", file({ a: f32([1], 4, 0) }, 4), "corrupt-safetensors", /no valid data_offsets/],
    ["offset beyond 2^53", file({ a: f32([1], 0, 2 ** 60) }, 4), "corrupt-safetensors", /no valid data_offsets/],
    ["no dtype", file({ a: { shape: [1], data_offsets: [0, 1] } }, 1), "corrupt-safetensors", /no dtype/],
    ["unknown dtype", file({ a: { dtype: "F4", shape: [2], data_offsets: [0, 1] } }, 1), "unsupported-dtype", /"a" has dtype "F4"/],
    ["tensor that is no object", file({ a: 5 }), "corrupt-safetensors", /not described by an object/],
    ["metadata of numbers", file({ __metadata__: { a: 1 } }), "corrupt-safetensors", /object of strings/],
  ])("refuses %s", async (_, bytes, code, message) => {
    const error = await failure(bytes);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    expect(error.message).toContain("x.safetensors");
    expect(error.hint).toBeDefined();
  }); // prettier-ignore

  test("lists all faults at once, at most 20 of them", async () => {
    const two = await failure(file({ a: f32([3], 0, 8), b: f32([-1], 8, 12), c: 1 }, 12));
    expect(two.message.match(/- tensor "[abc]"/g)).toHaveLength(3);
    const many = await failure(file(Object.fromEntries([...Array(50).keys()].map((i) => [`t${i}`, 1])))); // prettier-ignore
    expect(many.message).toContain("found 50 faults");
    expect(many.message.split("\n")).toHaveLength(22);
    expect(many.message).toContain("… and 30 more");
  });
});

describe("writing", () => {
  test("gives back the bytes of a file that Python wrote", async () => {
    const url = new URL("fixtures/mixed.safetensors", import.meta.url);
    const bytes = new Uint8Array(readFileSync(url));
    const { metadata, tensors } = await decodeSafetensors(bytes);
    expect(tensors.get("scalar")).toEqual(tensor("f32", [], Float32Array.of(0.1)));
    expect(tensors.size).toBe(10);
    const shuffled = new Map([...tensors].reverse());
    expect(Buffer.compare(serializeSafetensors(shuffled, metadata), bytes)).toBe(0);
  });

  test("orders and pads as Python's save_file", () => {
    // bytes of safetensors.numpy.save for these tensors, safetensors 0.8.0
    const expected =
      '{"__metadata__":{"format":"pt"},"w":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},' +
      '"d":{"dtype":"F64","shape":[1],"data_offsets":[8,16]},' +
      '"b":{"dtype":"F32","shape":[1],"data_offsets":[16,20]},' +
      '"sc":{"dtype":"F32","shape":[],"data_offsets":[20,24]},' +
      '"é\\n":{"dtype":"F32","shape":[0,3],"data_offsets":[24,24]},' +
      '"h":{"dtype":"I32","shape":[1],"data_offsets":[24,28]},' +
      '"q":{"dtype":"BF16","shape":[1],"data_offsets":[28,30]},' +
      '"a":{"dtype":"F16","shape":[1],"data_offsets":[30,32]},' +
      '"j":{"dtype":"I16","shape":[1],"data_offsets":[32,34]},' +
      '"i":{"dtype":"I8","shape":[1],"data_offsets":[34,35]},' +
      '"z":{"dtype":"U8","shape":[1],"data_offsets":[35,36]},' +
      '"y":{"dtype":"BOOL","shape":[1],"data_offsets":[36,37]}}';
    const dtypes = { y: "bool", z: "u8", i: "i8", j: "i16", a: "f16", q: "bf16", h: "i32", b: "f32", d: "f64", w: "i64" } as const; // prettier-ignore
    const specs = Object.entries(dtypes).map(([name, dtype]) => ({ name, dtype, shape: [1] }));
    const { header, size } = planSafetensors(
      [
        ...specs,
        { name: "é\n", dtype: "f32", shape: [0, 3] },
        { name: "sc", dtype: "f32", shape: [] },
      ],
      { format: "pt" },
    );
    const text = new TextDecoder().decode(header.subarray(8));
    expect(text.trimEnd()).toBe(expected);
    expect(text.length % 8).toBe(text.replace(/[^é]/g, "").length === 1 ? 7 : 0); // é has two bytes
    expect(size).toBe(header.length + 37);
  });

  test("sorts names by code point", () => {
    const names = ["\u{1f600}", "\uffee", "a", "B"];
    const { order } = planSafetensors(names.map((name) => ({ name, dtype: "u8", shape: [1] })));
    expect(order.map(({ name }) => name)).toEqual(["B", "a", "\uffee", "\u{1f600}"]);
  });

  test("streams the same bytes as in one piece, reading one tensor at a time, and reads back", async () => {
    const tensors = new Map([
      ["b", tensor("f16", [3], Uint16Array.of(1, 2, 3))],
      ["a", tensor("f32", [1, 2], Float32Array.of(-0, NaN))],
    ]);
    const whole = serializeSafetensors(tensors);
    const specs = [...tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
    const pieces: Uint8Array[] = [];
    for await (const piece of encodeSafetensors(specs, (name) => tensors.get(name)!))
      pieces.push(piece);
    expect(pieces.map((piece) => piece.length)).toEqual([pieces[0]!.length, 8, 6]);
    expect(Buffer.concat(pieces).equals(whole)).toBe(true);
    const back = await decodeSafetensors(whole);
    expect(back.metadata).toBeUndefined();
    expect(back.tensors.get("a")).toEqual(tensors.get("a"));
    expect(back.tensors.get("b")).toEqual(tensors.get("b"));
  });

  test("refuses a tensor that is not what was announced, and names that collide", async () => {
    const spec = { name: "a", dtype: "f32", shape: [2] } as const;
    const pieces = encodeSafetensors([spec], () => tensor("f32", [3]));
    await pieces.next();
    await expect(pieces.next()).rejects.toMatchObject({ code: "tensor-mismatch" });
    expect(() => planSafetensors([spec, spec])).toThrow(/"a" twice/);
    expect(() => planSafetensors([{ ...spec, name: "__metadata__" }])).toThrow(LorikeetError);
  });
});
