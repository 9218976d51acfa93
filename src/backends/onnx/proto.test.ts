import { expect, it } from "vitest";
import { encodeModel, encodeModelInParts, type OnnxModel } from "./proto.ts";

const model: OnnxModel = {
  name: "g",
  opsets: { "": 21 },
  nodes: [
    {
      ...{ opType: "Gemm", domain: "", name: "n", inputs: ["x", "w"], outputs: ["y"] },
      attributes: { alpha: { kind: "float", value: 0.5 }, transB: { kind: "int", value: 1 } },
    },
  ],
  initializers: [],
  inputs: [{ name: "x", dtype: "f32", shape: [1, 2] }],
  outputs: [{ name: "y", dtype: "f32", shape: [1, 3] }],
};
const weight = { name: "w", dtype: "f32", shape: [3, 2] } as const;
const bytes = Uint8Array.from({ length: 24 }, (_, i) => i);

/** Fields of a protobuf message: number and value, a number or bytes. */
function fieldsOf(message: Uint8Array): [number, number | Uint8Array][] {
  const fields: [number, number | Uint8Array][] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = message[at++]!;
      value += (byte & 127) * shift;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const [field, wire] = ((tag) => [tag >> 3, tag & 7] as const)(varint());
    const size = wire === 2 ? varint() : wire === 5 ? 4 : 0;
    if (size === 0 && wire === 0) fields.push([field, varint()]);
    else fields.push([field, message.subarray(at, (at += size))]);
  }
  return fields;
}
const of = (message: number | Uint8Array, field: number): (number | Uint8Array)[] =>
  fieldsOf(message as Uint8Array).flatMap(([number, value]) => (number === field ? [value] : []));
const text = (value: number | Uint8Array | undefined): string =>
  new TextDecoder().decode(value as Uint8Array);

it("writes ModelProto's fields", () => {
  const encoded = encodeModel({ ...model, initializers: [{ ...weight, data: bytes }] });
  expect(of(encoded, 1)).toEqual([10]); // ir_version
  expect(of(of(encoded, 8)[0]!, 2)).toEqual([21]); // opset_import.version
  const graph = of(encoded, 7)[0]!;
  const [gemm] = of(graph, 1);
  expect([...of(gemm!, 1), ...of(gemm!, 2), ...of(gemm!, 4)].map(text)).toEqual(["x", "w", "y", "Gemm"]); // prettier-ignore
  const attributes = of(gemm!, 5).map((attribute) => fieldsOf(attribute as Uint8Array));
  expect(attributes.map((fields) => fields.find(([field]) => field === 20)![1])).toEqual([1, 2]);
  const alpha = attributes[0]!.find(([field]) => field === 2)![1] as Uint8Array;
  expect(new DataView(alpha.buffer, alpha.byteOffset).getFloat32(0, true)).toBe(0.5);
  const [initializer] = of(graph, 5);
  expect(of(initializer!, 1)).toEqual([3, 2]);
  expect(of(initializer!, 2)).toEqual([1]);
  expect(text(of(initializer!, 8)[0])).toBe("w");
  expect(of(initializer!, 9)).toEqual([bytes]);
  expect(text(of(of(graph, 11)[0]!, 1)[0])).toBe("x");
});

it("names the range of a file that holds a constant", () => {
  const data = { location: "tmp/w.bin", offset: 4096, length: 24 };
  const encoded = encodeModel({ ...model, initializers: [{ ...weight, data }] });
  const [initializer] = of(of(encoded, 7)[0]!, 5);
  const entries = of(initializer!, 13).map((entry) => [...of(entry, 1), ...of(entry, 2)].map(text));
  expect(Object.fromEntries(entries)).toEqual({
    location: "tmp/w.bin",
    offset: "4096",
    length: "24",
  });
  expect(of(initializer!, 14)).toEqual([1]); // data_location: EXTERNAL
});

it("writes in parts a file with the same content", async () => {
  const parts: Uint8Array[] = [];
  const read = (): Promise<Uint8Array> => Promise.resolve(bytes);
  for await (const part of encodeModelInParts(model, [weight], read)) parts.push(part.slice());
  const [whole, joined] = [
    encodeModel({ ...model, initializers: [{ ...weight, data: bytes }] }),
    Uint8Array.from(parts.flatMap((part) => [...part])),
  ];
  const sorted = (fields: [number, unknown][]): unknown[] => fields.sort(([a], [b]) => a - b);
  expect(sorted(fieldsOf(of(joined, 7)[0] as Uint8Array))).toEqual(
    sorted(fieldsOf(of(whole, 7)[0] as Uint8Array)),
  );
  expect(fieldsOf(joined).filter(([field]) => field !== 7)).toEqual(
    fieldsOf(whole).filter(([field]) => field !== 7),
  );
});
