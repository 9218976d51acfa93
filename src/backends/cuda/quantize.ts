/** @file Quantized frozen weights: encoded on the GPU when they are loaded, decoded before each product. */
import { allocateDevice, type Device, freeDevice } from "./device.ts";
import { type Kernel, loadModule } from "./kernels.ts";
import { writeDevice } from "./memory.ts";
import { addressOf, type Storage, type Value } from "./plan/value.ts";

/**
 * `nf4`: 4-bit normal floats in blocks of 64 with doubly quantized scales; `int8`: one scale a row; `fp8`: 8-bit floats
 * with one scale a row, whose products run in 8 bits too.
 */
export type Quantization = "nf4" | "int8" | "fp8";

/** A weight that is stored in few bits. */
export interface QuantizedWeight {
  readonly bytes: number;
  /** Writes the weight's rows to `target`, which may have gaps between rows. */
  decode(target: Value): void;
}

/** Encodes weights of one device. */
export interface Quantizer {
  /** Encodes the float32 matrix (rows, columns) at `source`. */
  encode(source: number, rows: number, columns: number): QuantizedWeight;
}

const BLOCK = 64;
const GROUP = 256;

/** Largest absolute values are coded by this table: signed, 7 exponent bits, as bitsandbytes' `create_dynamic_map`. */
export function dynamicMap(): Float32Array {
  const values = [0, 1];
  for (let exponent = 0; exponent < 7; exponent++) {
    const count = 2 ** exponent;
    const edge = (i: number): number => 0.1 + (0.9 * i) / count;
    for (let i = 0; i < count; i++) {
      const mean = 10 ** (exponent - 6) * ((edge(i) + edge(i + 1)) / 2);
      values.push(mean, -mean);
    }
  }
  return Float32Array.from(values).sort();
}

/** Whether a weight of these sizes can be quantized: whole blocks and vectors. */
export function isQuantizable(rows: number, columns: number): boolean {
  return columns % BLOCK === 0 && rows > 0;
}

export function openQuantizer(
  device: Device,
  kind: Exclude<Quantization, "fp8">,
  storage: Storage,
): Quantizer {
  const module = loadModule(device, ["quantize"], { T: storage });
  return kind === "nf4" ? nf4Quantizer(device, module) : int8Quantizer(device, module);
}

type Loaded = ReturnType<typeof loadModule>;

function nf4Quantizer(device: Device, module: Loaded): Quantizer {
  const quantize = module.kernel("nf4_quantize", "pppi");
  const mean = module.kernel("mean_of", "ppi");
  const scalesKernel = module.kernel("quantize_scales", "pppppi");
  const decode = module.kernel("nf4_decode", "ppppppiii");
  const map = allocateDevice(device, GROUP * 4, "quantization table");
  writeDevice(device, map, dynamicMap());
  return {
    encode(source, rows, columns) {
      const blocks = (rows * columns) / BLOCK;
      const groups = Math.ceil(blocks / GROUP);
      const sizes = [(rows * columns) / 2, blocks, groups * 4, 4].map(
        (size) => Math.ceil(size / 256) * 256,
      );
      const bytes = sizes.reduce((sum, size) => sum + size, 0);
      let next = allocateDevice(device, bytes, "quantized weights");
      const [codes, scaleCodes, factors, offset] = sizes.map((size) => (next += size) - size) as [
        number,
        number,
        number,
        number,
      ];
      const scales = allocateDevice(device, blocks * 4, "quantizing weights");
      quantize.launch([Math.ceil(blocks / 8)], 256, [source, codes, scales, blocks]);
      mean.launch([1], 512, [scales, offset, blocks]);
      scalesKernel.launch([groups], GROUP, [scales, offset, map, scaleCodes, factors, blocks]);
      device.driver.call.cuStreamSynchronize(device.stream);
      freeDevice(device, scales);
      return {
        bytes,
        decode(target) {
          const values = [
            codes,
            scaleCodes,
            factors,
            offset,
            map,
            addressOf(target),
            rows,
            columns,
            target.ld,
          ];
          decode.launch([gridFor(rows * columns)], 256, values);
        },
      };
    },
  };
}

function int8Quantizer(device: Device, module: Loaded): Quantizer {
  const quantize: Kernel = module.kernel("int8_quantize", "pppi");
  const decode = module.kernel("int8_decode", "pppiii");
  return {
    encode(source, rows, columns) {
      const codeBytes = Math.ceil((rows * columns) / 256) * 256;
      const bytes = codeBytes + rows * 4;
      const codes = allocateDevice(device, bytes, "quantized weights");
      const scales = codes + codeBytes;
      quantize.launch([rows], 256, [source, codes, scales, columns]);
      device.driver.call.cuStreamSynchronize(device.stream);
      return {
        bytes,
        decode(target) {
          decode.launch([gridFor(rows * columns)], 256, [
            codes,
            scales,
            addressOf(target),
            rows,
            columns,
            target.ld,
          ]);
        },
      };
    },
  };
}

function gridFor(elements: number): number {
  return Math.max(1, Math.min(4096, Math.ceil(elements / 8 / 256)));
}
