import { constants } from "node:fs";
import { access, stat, statfs } from "node:fs/promises";
import { arch, availableParallelism, cpus, freemem, release, totalmem, type } from "node:os";
import { resolve } from "node:path";
import { getHFHubCachePath } from "@huggingface/hub";
import { hubToken, isOffline } from "./hub-access.ts";

/** What one look at the machine found. `missing` stops Lorikeet from working; `limited` only some of it. */
export interface Finding {
  readonly name: string;
  readonly status: "ok" | "limited" | "missing";
  readonly detail: string;
  /** What was tried, for whoever wants to know why. */
  readonly notes?: readonly string[];
  /** What to do about it. */
  readonly remedy?: string;
}

/** A look at one thing. */
export type Probe = () => Promise<Finding>;

const GIB = 2 ** 30;

/** Looks that need no engine: Node, processor, memory, ONNX Runtime, the embedded model, caches, disk. */
export const HOST_PROBES: readonly Probe[] = [
  probeNode,
  probeProcessor,
  probeMemory,
  probeOnnxRuntime,
  probeEmbeddedModel,
  probeHubCache,
  probeFolder,
];

/** The findings of `probes`, in their order; a probe that fails is a finding too. */
export async function diagnose(probes: readonly Probe[]): Promise<Finding[]> {
  return Promise.all(
    probes.map((probe) =>
      probe().catch((error: unknown): Finding => ({
        name: probe.name.replace(/^probe/, ""),
        status: "limited",
        detail: `could not be checked: ${messageOf(error)}`,
      })),
    ),
  );
}

async function probeNode(): Promise<Finding> {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const name = "Node.js";
  const detail = `${process.version} on ${type()} ${release()}, ${arch()}`;
  if (major > 20 || (major === 20 && minor >= 19)) return { name, status: "ok", detail };
  return { name, status: "missing", detail, remedy: "Install Node.js 20.19 or newer." };
}

async function probeProcessor(): Promise<Finding> {
  const model = cpus()[0]?.model.trim() ?? "unknown model";
  const usable = availableParallelism();
  return { name: "Processor", status: "ok", detail: `${model}, ${usable} threads usable` };
}

async function probeMemory(): Promise<Finding> {
  const total = Math.min(totalmem(), constrainedMemory());
  const free = Math.min(freemem(), total);
  const detail = `${gib(total)} in all, ${gib(free)} free`;
  if (free >= GIB) return { name: "Memory", status: "ok", detail };
  const remedy =
    "Close other programs, or train with --gradient-checkpointing, a smaller batch or --max-length.";
  return { name: "Memory", status: "limited", detail, remedy };
}

/** The limit of a container, or infinity. */
function constrainedMemory(): number {
  return process.constrainedMemory() || Infinity;
}

async function probeOnnxRuntime(): Promise<Finding> {
  const name = "ONNX Runtime";
  try {
    const { env, listSupportedBackends } = await import("onnxruntime-node");
    const backends = listSupportedBackends().map((backend) => backend.name);
    const version = env.versions.node ?? env.versions.common;
    return { name, status: "ok", detail: `${version}, built for ${backends.join(", ")}` };
  } catch (error) {
    return {
      name,
      status: "missing",
      detail: messageOf(error),
      remedy: "Run `npm install` again; on Alpine Linux use an image with glibc.",
    };
  }
}

async function probeEmbeddedModel(): Promise<Finding> {
  const name = "Embedded model";
  const file = new URL("../../models/storyteller-6m/model.safetensors", import.meta.url);
  const info = await stat(file).catch(() => undefined);
  if (info)
    return { name, status: "ok", detail: `storyteller-6m, ${(info.size / 1e6).toFixed(1)} MB` };
  return {
    name,
    status: "limited",
    detail: "storyteller-6m is not in this installation",
    remedy: "Install the package again; other models work without it.",
  };
}

async function probeHubCache(): Promise<Finding> {
  const hasToken = (await hubToken()) !== undefined;
  const detail = [
    getHFHubCachePath(),
    hasToken ? "token found" : "no token",
    ...(isOffline() ? ["offline mode"] : []),
  ].join(", ");
  return { name: "Model cache", status: "ok", detail };
}

async function probeFolder(): Promise<Finding> {
  const name = "This folder";
  const folder = resolve(".");
  const remedy = "Name another folder with --output-dir.";
  try {
    await access(folder, constants.W_OK);
  } catch {
    return { name, status: "limited", detail: `${folder} cannot be written`, remedy };
  }
  const { bavail, bsize } = await statfs(folder);
  const detail = `${folder}, ${gib(bavail * bsize)} free`;
  if (bavail * bsize > GIB) return { name, status: "ok", detail };
  return { name, status: "limited", detail, remedy };
}

function gib(bytes: number): string {
  return `${(bytes / GIB).toFixed(1)} GiB`;
}

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0] ?? "";
}
