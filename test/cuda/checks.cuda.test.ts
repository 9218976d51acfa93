import { beforeAll, describe, inject, it } from "vitest";
import { type Device, openDevice } from "../../src/backends/cuda/device.ts";
import { allChecks } from "./all.ts";
import { Skipped } from "./check.ts";

/** Milliseconds: 200 steps wait for PEFT's, and programs under compute-sanitizer are a hundred times slower. */
const TIMEOUT = 600_000;

let device: Device | undefined;

describe("CUDA engine", () => {
  beforeAll(() => {
    if (inject("hasGpu")) for (const check of allChecks) check.prepare?.();
  });

  for (const check of allChecks)
    it(check.name, { timeout: TIMEOUT }, async ({ skip }) => {
      device ??= openDevice(0);
      try {
        await check.run(device);
      } catch (error) {
        skip(error instanceof Skipped, error instanceof Error ? error.message : String(error));
        throw error;
      }
    });
});
