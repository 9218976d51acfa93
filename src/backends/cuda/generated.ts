/** @file Generated kernels of a program: equal texts are one kernel, all compiled together. */
import { createHash } from "node:crypto";
import type { Device } from "./device.ts";
import { type Kernel, loadModule } from "./kernels.ts";
import type { GeneratedKernels } from "./plan/context.ts";
import { addressOf, type Unit } from "./plan/value.ts";

/** The kernels that a plan asked for; `compile` must run before any of their units. */
export interface KernelCollection extends GeneratedKernels {
  compile(): void;
  /** The program's generated source text. */
  readonly source: string;
}

export function collectKernels(device: Device): KernelCollection {
  const texts = new Map<string, { name: string; parameters: number }>();
  const compiled = new Map<string, Kernel>();
  const sourceOf = (): string =>
    [...texts].map(([body, { name }]) => `KERNEL ${name}${body}`).join("\n");
  return {
    get source() {
      return sourceOf();
    },
    unit(name, kernel, stores): Unit {
      const { body, parameters, grid, threads } = kernel;
      const known = texts.get(body);
      const id =
        known?.name ?? `fused_${createHash("sha256").update(body).digest("hex").slice(0, 12)}`;
      texts.set(body, { name: id, parameters: parameters.length });
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
    compile() {
      if (texts.size === 0) return;
      const module = loadModule(device, [], {}, sourceOf());
      for (const { name, parameters } of texts.values())
        compiled.set(name, module.kernel(name, "p".repeat(parameters)));
    },
  };
}
