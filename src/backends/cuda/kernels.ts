/** @file Device code: compiled by NVRTC on first use, kept on disk, launched with packed parameters. */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { LorikeetError } from "../../errors.ts";
import { type CompileJob, compileTogether, type Compiling } from "./compile-together.ts";
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

/** What makes a module: files of `kernels/`, macros, and a text after those. */
type ModuleSource = readonly [
  files: readonly string[],
  defines?: Readonly<Record<string, string | number>>,
  source?: string,
];

/** A module's source with the name of its code in the cache. */
interface KeyedJob extends CompileJob {
  readonly key: string;
}

const expected = new WeakMap<Device, Map<string, ModuleSource>>();
/** Code that `loadModule` has not asked for yet, for where the disk takes none. */
const ready = new Map<string, Uint8Array>();
const running = new WeakMap<Device, Map<string, Promise<void>>>();

/**
 * Compiles `files` of `kernels/` (or the text `source`) with `defines`, after the prelude. Equal code is one module of
 * the device, until that is disposed.
 * @throws LorikeetError `cuda-compile` with the compiler's log
 */
export function loadModule(device: Device, ...source: ModuleSource): Module {
  const job = jobOf(device, source);
  const modules = loaded.get(device) ?? new Map<string, Module>();
  loaded.set(device, modules);
  const module = modules.get(job.key) ?? moduleOf(device, compiled(job));
  modules.set(job.key, module);
  return module;
}

/** Says that `loadModule` will be called so: `compileExpected` then has the code ready. */
export function expectModule(device: Device, ...source: ModuleSource): void {
  const sources = expected.get(device) ?? new Map<string, ModuleSource>();
  expected.set(device, sources);
  sources.set(JSON.stringify(source), source);
}

/** Compiles at once what is expected and not on disk; `done` also waits for what was begun for this device before. */
export function compileExpected(device: Device): Compiling {
  const jobs = [...(expected.get(device)?.values() ?? [])].map((source) => jobOf(device, source));
  expected.delete(device);
  const begun = running.get(device) ?? new Map<string, Promise<void>>();
  running.set(device, begun);
  const missing = jobs.filter(
    ({ key }) =>
      !begun.has(key) &&
      !loaded.get(device)?.has(key) &&
      !ready.has(key) &&
      !existsSync(pathOf(key)),
  );
  const { done, stop } = compileTogether(missing, ({ key }, cubin) => {
    ready.set(key, cubin);
    keep(pathOf(key), cubin);
  });
  for (const { key } of missing) begun.set(key, done);
  device.releases.add(stop);
  const end = (): void => {
    for (const { key } of missing) begun.delete(key);
    device.releases.delete(stop);
  };
  return { done: Promise.all(begun.values()).then(end), stop };
}

function jobOf(device: Device, [files, defines = {}, source = ""]: ModuleSource): KeyedJob {
  const text = [read("prelude"), ...files.map(read), source].join("\n");
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
  return { key, name: `${files.join("+") || "generated"}.cu`, source: text, options };
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

function pathOf(key: string): string {
  return join(cacheFolder(), `${key}.cubin`);
}

/** The machine code of a job, from the disk where it is kept. */
function compiled({ key, name, source, options }: KeyedJob): Uint8Array {
  const known = ready.get(key);
  ready.delete(key);
  if (known) return known;
  try {
    return readFileSync(pathOf(key));
  } catch {
    const { cubin } = openCompiler().compile(name, source, options);
    keep(pathOf(key), cubin);
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
