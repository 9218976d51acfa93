/** @file Sums over processes by NCCL, with the one process that a machine of one GPU can have. */
import { openCommunicator } from "../../src/backends/cuda/communicator.ts";
import type { Device } from "../../src/backends/cuda/device.ts";
import { openNccl } from "../../src/backends/cuda/ffi/nccl.ts";
import { toFloat64 } from "../../src/tensor/convert.ts";
import { Random } from "../../src/tensor/random.ts";
import {
  type Check,
  download,
  expectClose,
  randomTensor,
  release,
  Skipped,
  upload,
} from "./check.ts";

async function checkSums(device: Device): Promise<string> {
  let version: string;
  try {
    ({ version } = openNccl());
  } catch (error) {
    throw new Skipped(error instanceof Error ? error.message : String(error));
  }
  const values = randomTensor(new Random(9), [1000]);
  const at = upload(device, values);
  const ranks = openCommunicator(device, { rank: 0, size: 1, address: "127.0.0.1:29873" });
  ranks.addUp(at, 1000);
  const report = expectClose("values", download(device, at, "f32", [1000]), toFloat64(values), 0);
  const sums = await ranks.sum([0.1, -2]);
  ranks.dispose();
  release(device, [at]);
  if (sums[0] !== 0.1 || sums[1] !== -2) throw new Error(`expected 0.1 and -2, got ${sums.join()}`);
  return `NCCL ${version}: ${report}`;
}

export const checks: readonly Check[] = [{ name: "nccl sums of one process", run: checkSums }];
