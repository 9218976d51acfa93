/** @file Generated kernels of a program: equal texts are one kernel, compiled in groups. */
import { createHash } from "node:crypto";
import type { Device } from "./device.ts";
import { expectModule, type Kernel, loadModule } from "./kernels.ts";
import type { GeneratedKernels } from "./plan/context.ts";
import { addressOf, type Unit } from "./plan/value.ts";

/** The kernels that a plan asked for; `compile` must run before any of their units. */
export interface KernelCollection extends GeneratedKernels {
  /** Says that `compile` will come, so that the groups are compiled at once. */
  expect(): void;
  compile(): void;
}

/** Characters of a module: compiling them takes about fifteen times as long as opening the compiler for them. */
const GROUP = 30_000;

/** Neighbours in groups of `size` characters or less; a longer one is a group of its own. */
export function inGroups<T extends { readonly text: string }>(
  kernels: Iterable<T>,
  size: number = GROUP,
): T[][] {
  const groups: T[][] = [];
  let left = 0;
  for (const kernel of kernels) {
    const { length } = kernel.text;
    if (length > left) {
      groups.push([]);
      left = size;
    }
    groups.at(-1)!.push(kernel);
    left -= length;
  }
  return groups.filter((group) => group.length > 0);
}

export function collectKernels(device: Device): KernelCollection {
  const texts = new Map<string, { name: string; text: string; parameters: number }>();
  const compiled = new Map<string, Kernel>();
  const groups = (): { kernels: { name: string; parameters: number }[]; source: string }[] =>
    inGroups(texts.values()).map((kernels) => ({
      kernels,
      source: kernels.map(({ text }) => text).join("\n"),
    }));
  return {
    unit(name, kernel, stores): Unit {
      const { body, parameters, grid, threads } = kernel;
      const known = texts.get(body);
      const id =
        known?.name ?? `fused_${createHash("sha256").update(body).digest("hex").slice(0, 12)}`;
      texts.set(body, { name: id, text: `KERNEL ${id}${body}`, parameters: parameters.length });
      const written = stores.map(({ value }) => value);
      const accumulated = stores.filter(({ accumulate }) => accumulate).map(({ value }) => value);
      return {
        name,
        reads: [...parameters.filter((value) => !written.includes(value)), ...accumulated],
        writes: written,
        scratch: [],
        enqueue() {
          compiled.get(id)!.launch([grid], threads, parameters.map(addressOf));
        },
      };
    },
    expect() {
      for (const { source } of groups()) expectModule(device, [], {}, source);
    },
    compile() {
      for (const { kernels, source } of groups()) {
        const module = loadModule(device, [], {}, source);
        for (const { name, parameters } of kernels)
          compiled.set(name, module.kernel(name, "p".repeat(parameters)));
      }
    },
  };
}
