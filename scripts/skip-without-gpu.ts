/** @file Setup of the `cuda` test project: without an NVIDIA GPU each of its tests shows as skipped. */
import { beforeEach, inject } from "vitest";

declare module "vitest" {
  interface ProvidedContext {
    /** Whether this machine has an NVIDIA GPU. Guards a `beforeAll` that opens the device. */
    hasGpu: boolean;
  }
}

beforeEach(({ skip }) => {
  skip(!inject("hasGpu"), "no NVIDIA GPU");
});
