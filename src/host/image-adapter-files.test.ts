import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { diffusionFolder } from "../../test/support/diffusion.ts";
import type { Adapter } from "../adapter/adapter.ts";
import { adapterOfModules } from "../adapter/adapter-modules.ts";
import { decodeSafetensors } from "../formats/safetensors.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { loadAdapterFolder } from "./adapter-files.ts";
import {
  type ImageAdapterFormat,
  isImageAdapter,
  loadImageAdapter,
  saveImageAdapter,
} from "./image-adapter-files.ts";

const fixture = (name: string): string => join(diffusionFolder, "lora", name);
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "lorikeet-image-adapter-"));
});
afterEach(() => rm(folder, { recursive: true }));

/** dtype, shape and bytes of each tensor, by key. */
function bytes(tensors: ReadonlyMap<string, Tensor>): Record<string, unknown> {
  return Object.fromEntries(
    [...tensors].map(([key, { dtype, shape, data }]) => {
      const raw = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
      return [key, [dtype, shape, raw.toString("base64")]];
    }),
  );
}

/** What an adapter computes: its tensors, and the scale of each module. */
function meaning({ tensors, config }: Adapter): unknown {
  const { r, alpha, rankPattern, alphaPattern } = config;
  return { tensors: bytes(tensors), r, alpha, rankPattern, alphaPattern };
}

const values = (...shape: number[]): Tensor => {
  const size = shape.reduce((product, length) => product * length, 1);
  return tensor(
    "f16",
    shape,
    Uint16Array.from({ length: size }, (_, i) => (i * 7919) % 31744),
  );
};

/** Two text encoders, f16, alphas and ranks that differ, DoRA: as SDXL adapters come. */
function xlAdapter(): Adapter {
  const at = "text_model.encoder.layers.3";
  const parts = (out: number, inner: number, rank: number): Map<string, Tensor> =>
    new Map([
      ["lora_A.weight", values(rank, inner)],
      ["lora_B.weight", values(out, rank)],
      ["lora_magnitude_vector", values(out)],
    ]);
  const block = "unet.up_blocks.0.attentions.1.transformer_blocks.9";
  return adapterOfModules(
    new Map([
      [`${block}.attn2.to_k`, { parts: parts(12, 2048, 4), alpha: 4 }],
      [`${block}.ff.net.0.proj`, { parts: parts(16, 12, 2), alpha: 1 }],
      [`text_encoder.${at}.self_attn.q_proj`, { parts: parts(8, 8, 4), alpha: 4 }],
      [`text_encoder_2.${at}.mlp.fc1`, { parts: parts(8, 8, 4), alpha: 0.5 }],
    ]),
    {},
  );
}

const formats: readonly ImageAdapterFormat[] = ["diffusers", "kohya", "peft"];

describe("tensors, ranks and alphas stay the same, byte by byte", () => {
  const routes = formats.flatMap((first) =>
    formats.filter((second) => second !== first).map((second) => [first, second] as const),
  );
  it.each(routes)("by way of %s and %s", async (first, second) => {
    const cases = [xlAdapter()];
    for (const name of ["sd1-attention", "sd1-everything"])
      cases.push(await loadImageAdapter(fixture(name)));
    for (const [i, adapter] of cases.entries()) {
      const [one, two] = [join(folder, `${i}-1`), join(folder, `${i}-2`)];
      await saveImageAdapter(adapter, one, first);
      await saveImageAdapter(await loadImageAdapter(one), two, second);
      expect(meaning(await loadImageAdapter(two))).toEqual(meaning(adapter));
    }
  });

  it("a file that comes back to its own format is the same, metadata too", async () => {
    for (const name of ["sd1-attention", "sd1-everything"]) {
      const original = join(fixture(name), "pytorch_lora_weights.safetensors");
      const kohya = join(folder, `${name}.safetensors`);
      await saveImageAdapter(await loadImageAdapter(original), kohya, "kohya");
      await saveImageAdapter(await loadImageAdapter(kohya), join(folder, name), "diffusers");
      const written = await decodeSafetensors(await readFile(join(folder, name, "pytorch_lora_weights.safetensors"))); // prettier-ignore
      const wanted = await decodeSafetensors(await readFile(original));
      expect(bytes(written.tensors)).toEqual(bytes(wanted.tensors));
      const { lora_adapter_metadata: config, ...rest } = written.metadata!;
      expect(config).toBe(wanted.metadata?.["lora_adapter_metadata"]);
      expect(rest).toMatchObject({ format: "pt", ss_network_module: "networks.lora" });
    }
  });

  it("metadata of kohya's goes through diffusers; one that no longer holds is written anew", async () => {
    const source = await loadImageAdapter(fixture("sd1-everything/pytorch_lora_weights.safetensors")); // prettier-ignore
    const metadata = { ...source.metadata, ss_output_name: "creature", sshs_model_hash: "abc" };
    await saveImageAdapter({ ...source, metadata }, join(folder, "d"), "diffusers");
    await saveImageAdapter(await loadImageAdapter(join(folder, "d")), join(folder, "k"), "kohya");
    const again = await loadImageAdapter(join(folder, "k"));
    expect(again.metadata).toMatchObject({ ss_output_name: "creature", sshs_model_hash: "abc" });
    const halved = { ...source, config: { ...source.config, alpha: source.config.alpha / 2 } };
    await saveImageAdapter(halved, join(folder, "half"), "diffusers");
    const { config } = await loadImageAdapter(join(folder, "half"));
    expect(config.alpha).toBe(source.config.alpha / 2);
  });
});

describe("PEFT's folders", () => {
  it("have an adapter for each model, with the model's own names", async () => {
    await saveImageAdapter(xlAdapter(), folder, "peft");
    for (const [model, module] of [
      ["unet", "up_blocks.0.attentions.1.transformer_blocks.9.attn2.to_k"],
      ["text_encoder", "encoder.layers.3.self_attn.q_proj"],
      ["text_encoder_2", "text_model.encoder.layers.3.mlp.fc1"],
    ] as const) {
      const { config, tensors } = await loadAdapterFolder(join(folder, model));
      expect(config.targetModules).toContain(module);
      expect([...tensors.keys()]).toContain(`base_model.model.${module}.lora_A.weight`);
    }
  });

  it("are read with names of the pipeline, or of one model", async () => {
    const adapter = await loadImageAdapter(fixture("sd1-attention"));
    await saveImageAdapter(adapter, folder, "peft");
    expect(meaning(await loadImageAdapter(join(folder, "unet")))).toEqual(meaning(adapter));
  });
});

describe("what is at a path", () => {
  it("is told by names and keys", async () => {
    const { kohya, weights } = { kohya: "kohya.safetensors", weights: "pytorch_lora_weights.safetensors" }; // prettier-ignore
    expect(await isImageAdapter(fixture("sd1-attention"))).toBe(true);
    expect(await isImageAdapter(join(fixture("sd1-attention"), kohya))).toBe(true);
    expect(await isImageAdapter(join(diffusionFolder, "sd1"))).toBe(false);
    expect(await isImageAdapter(join(diffusionFolder, "sd1/unet"))).toBe(false);
    expect(await isImageAdapter(join(folder, "none"))).toBe(false);
    await mkdir(join(folder, "one"));
    await copyFile(join(fixture("sd1-attention"), kohya), join(folder, "one/style.safetensors"));
    expect((await loadImageAdapter(join(folder, "one"))).tensors.size).toBeGreaterThan(20);
    await copyFile(join(fixture("sd1-attention"), weights), join(folder, "one/b.safetensors"));
    await expect(loadImageAdapter(join(folder, "one"))).rejects.toThrow("found b.safetensors, style.safetensors"); // prettier-ignore
  });

  it("that is no adapter is refused with what is there", async () => {
    await writeFile(join(folder, "notes.txt"), "");
    await expect(loadImageAdapter(folder)).rejects.toMatchObject({ code: "file-not-found", message: expect.stringContaining("notes.txt") as string }); // prettier-ignore
    const model = join(diffusionFolder, "sd1/unet/diffusion_pytorch_model.safetensors");
    await expect(loadImageAdapter(model)).rejects.toMatchObject({ code: "adapter-tensors" });
    await writeFile(join(folder, "cut.safetensors"), (await readFile(model)).subarray(0, 500));
    await expect(loadImageAdapter(join(folder, "cut.safetensors"))).rejects.toMatchObject({ code: "truncated-file" }); // prettier-ignore
  });
});
