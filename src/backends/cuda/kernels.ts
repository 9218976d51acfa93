/** @file Device code: compiled by NVRTC on first use, kept on disk, launched with packed parameters. */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { LorikeetError } from "../../errors.ts";
import type { Device } from "./device.ts";
import { out64 } from "./ffi/driver.ts";
import { allocateNative, type NativeMemory } from "./ffi/library.ts";
import { openCompiler } from "./ffi/nvrtc.ts";

/** A kernel of a compiled module. */
export interface Kernel {
  readonly name: string;
  /**
   * Puts one launch on the device's stream.
   * @param grid blocks in x, y, z
   * @param threads threads of a block
   * @param values parameters in order; pointers are addresses
   * @param sharedBytes dynamic shared memory of a block
   */
  launch(
    grid: readonly [number, number?, number?],
    threads: number,
    values: readonly number[],
    sharedBytes?: number,
  ): void;
}

/** Compiled device code. */
export interface Module {
  /** @param parameters one letter each: `p` pointer, `l` 64-bit int, `i` int, `f` float; members of a struct in order */
  kernel(name: string, parameters: string): Kernel;
}

const MAX_SHARED_ATTRIBUTE = 8;
const read = (file: string): string =>
  readFileSync(new URL(`./kernels/${file}.cu`, import.meta.url), "utf8");
const loaded = new WeakMap<Device, Map<string, Module>>();
let packed: { parameters: NativeMemory; extra: BigUint64Array; size: BigUint64Array } | undefined;

/**
 * Compiles `files` of `kernels/` (or the text `source`) with `defines`, after the prelude. Equal code is one module of
 * the device, until that is disposed.
 * @throws LorikeetError `cuda-compile` with the compiler's log
 */
export function loadModule(
  device: Device,
  files: readonly string[],
  defines: Readonly<Record<string, string | number>> = {},
  source = "",
): Module {
  const text = [read("prelude"), ...files.map(read), source].join("\n");
  const name = `${files.join("+") || "generated"}.cu`;
  const [major, minor] = device.info.capability;
  const options = [
    `--gpu-architecture=sm_${major}${minor}${major >= 9 ? "a" : ""}`,
    "--std=c++17",
    ...Object.entries(defines).map(([key, value]) => `-D${key}=${value}`),
  ];
  const key = createHash("sha256")
    .update([openCompiler().version, ...options, text].join("\0"))
    .digest("hex")
    .slice(0, 32);
  const modules = loaded.get(device) ?? new Map<string, Module>();
  loaded.set(device, modules);
  const module = modules.get(key) ?? moduleOf(device, compiled(key, text, options, name));
  modules.set(key, module);
  return module;
}

function moduleOf(device: Device, code: Uint8Array): Module {
  const { call, raw } = device.driver;
  call.cuModuleLoadData(out64, code);
  const module = out64[0]!;
  device.releases.add(() => void raw.cuModuleUnload(module));
  const functions = new Map<string, DeviceFunction>();
  return {
    kernel(name, parameters) {
      const known = functions.get(name) ?? functionOf(device, module, name);
      functions.set(name, known);
      return makeKernel(device, known, name, parameters);
    },
  };
}

/** Folder of compiled kernels: LORIKEET_CACHE, else XDG_CACHE_HOME or ~/.cache, then lorikeet/cuda. */
export function cacheFolder(): string {
  const root =
    process.env["LORIKEET_CACHE"] ??
    join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "lorikeet");
  return join(root, "cuda");
}

/** The cubin of `text`, from the disk where it is kept by `key`. */
function compiled(key: string, text: string, options: readonly string[], name: string): Uint8Array {
  const path = join(cacheFolder(), `${key}.cubin`);
  try {
    return readFileSync(path);
  } catch {
    const { cubin } = openCompiler().compile(name, text, options);
    keep(path, cubin);
    return cubin;
  }
}

/** A cache that cannot be written only costs time, so failures to write are ignored. */
function keep(path: string, bytes: Uint8Array): void {
  const temporary = `${path}.${process.pid}`;
  try {
    mkdirSync(cacheFolder(), { recursive: true });
    writeFileSync(temporary, bytes);
    renameSync(temporary, path);
  } catch {
    return;
  }
}

/** A function of a module, and the dynamic shared memory that it may take; all its kernels see the same limit. */
interface DeviceFunction {
  readonly handle: bigint;
  optedIn: number;
}

function functionOf(device: Device, module: bigint, name: string): DeviceFunction {
  device.driver.call.cuModuleGetFunction(out64, module, name);
  // below the 48 KiB that need no permission, as static arrays count too
  return { handle: out64[0]!, optedIn: 32 << 10 };
}

function makeKernel(
  device: Device,
  code: DeviceFunction,
  name: string,
  parameters: string,
): Kernel {
  const { call } = device.driver;
  return {
    name,
    launch(grid, threads, values, sharedBytes = 0) {
      if (values.length !== parameters.length)
        throw new LorikeetError(
          "cuda-launch",
          `Expected ${parameters.length} parameters for ${name}, got ${values.length}`,
        );
      if (sharedBytes > code.optedIn) {
        call.cuFuncSetAttribute(code.handle, MAX_SHARED_ATTRIBUTE, sharedBytes);
        code.optedIn = sharedBytes;
      }
      const extra = pack(parameters, values);
      const [x, y = 1, z = 1] = grid;
      call.cuLaunchKernel(
        ...([
          code.handle,
          x,
          y,
          z,
          threads,
          1,
          1,
          sharedBytes,
          device.stream,
          null,
          extra,
        ] as const),
      );
    },
  };
}

/** Lays out parameters as a C struct and returns the `extra` array of cuLaunchKernel that points to them. */
function pack(parameters: string, values: readonly number[]): BigUint64Array {
  if (!packed) {
    const memory = allocateNative(4096);
    const size = new BigUint64Array(memory.buffer, 4088, 1);
    const extra = BigUint64Array.of(
      1n,
      BigInt(memory.address),
      2n,
      BigInt(memory.address + 4088),
      0n,
    );
    packed = { parameters: memory, extra, size };
  }
  const view = new DataView(packed.parameters.buffer);
  let offset = 0;
  for (let i = 0; i < parameters.length; i++) {
    const value = values[i]!;
    if (parameters[i] === "p" || parameters[i] === "l") {
      offset = Math.ceil(offset / 8) * 8;
      view.setBigUint64(offset, BigInt(value), true);
      offset += 8;
      continue;
    }
    if (parameters[i] === "f") view.setFloat32(offset, value, true);
    else view.setInt32(offset, value, true);
    offset += 4;
  }
  packed.size[0] = BigInt(offset);
  return packed.extra;
}
