/**
 * @file Reads every adapter of make_image_loras.py, computes UNet, latents and image with it, and writes it as diffusers,
 * kohya and PEFT do, and merged. Prints a line a case; check_image_loras.py makes the table.
 *
 *   node --import ./scripts/typescript.js test/interop/check-diffusers.ts GRID OURS [CASE…]
 */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { type ImagePipeline, loadPipeline, pipelineNaming } from "../../src/api/image-pipeline.ts";
import { openImageSession } from "../../src/api/image-session.ts";
import { imagine, type ImagineOptions } from "../../src/api/imagine.ts";
import { mergePipeline } from "../../src/api/merge-pipeline.ts";
import { decodeSafetensors } from "../../src/formats/safetensors.ts";
import { serializeSafetensors } from "../../src/formats/safetensors-write.ts";
import { writeAtomically } from "../../src/host/files.ts";
import { loadImageAdapter, saveImageAdapter } from "../../src/host/image-adapter-files.ts";
import { tensor, type Tensor } from "../../src/tensor/tensor.ts";
import { farthest } from "../support/diffusion.ts";

const [grid, ours, ...chosen] = process.argv.slice(2);
if (grid === undefined || ours === undefined) {
  process.stderr.write("check-diffusers.ts GRID OURS [CASE…]\n");
  process.exit(2);
}
const cases = JSON.parse(await readFile(join(grid, "cases.json"), "utf8")) as Record<string, string>; // prettier-ignore
for (const [name, base] of Object.entries(cases)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue;
  try {
    process.stdout.write(`${name.padEnd(20)} ${await checkCase(join(grid, name), join(ours, name), base)}\n`); // prettier-ignore
  } catch (error) {
    process.exitCode = 1;
    process.stdout.write(`${name.padEnd(20)} ${String((error as Error).stack)}\n`);
  }
}

async function checkCase(theirs: string, out: string, base: string): Promise<string> {
  await rm(out, { recursive: true, force: true });
  const pipeline = await loadPipeline(join(grid!, "base", base), { threads: 1 });
  const naming = pipelineNaming(pipeline);
  const adapter = await loadImageAdapter(join(theirs, "pytorch_lora_weights.safetensors"), naming); // prettier-ignore
  const { tensors } = await decodeSafetensors(await readFile(join(theirs, "expected.safetensors")));
  const got = await compute(pipeline.withAdapters([{ adapter }]), base, tensors);
  await writeAtomically(join(out, "ours.safetensors"), serializeSafetensors(new Map(Object.entries(got)))); // prettier-ignore
  await saveImageAdapter(adapter, join(out, "diffusers"), "diffusers", naming);
  const { metadata: _, ...bare } = adapter;
  await saveImageAdapter(bare, join(out, "anew"), "diffusers", naming);
  await saveImageAdapter(adapter, join(out, "kohya.safetensors"), "kohya", naming);
  await saveImageAdapter(adapter, join(out, "peft"), "peft", naming);
  // picturebook's weights are f16: to be compared, what is merged stays unrounded
  const merged = pipeline.withAdapters([{ adapter }]);
  await mergePipeline(merged, join(out, "merged"), { dtype: "f32" });
  const differences = Object.entries(got).map(([key, value]) => `${key} ${farthest(value, tensors.get(key)!).toExponential(1)}`); // prettier-ignore
  return differences.join("  ");
}

async function compute(
  pipeline: ImagePipeline,
  base: string,
  given: ReadonlyMap<string, Tensor>,
): Promise<Record<string, Tensor>> {
  const session = await openImageSession(pipeline);
  try {
    const names = ["sample", "timestep", "encoder_hidden_states", "text_embeds", "time_ids"];
    const feeds = Object.fromEntries(names.flatMap((key) => (given.has(key) ? [[key, given.get(key)!]] : []))); // prettier-ignore
    const [batch, , height, width] = given.get("sample")!.shape as [number, number, number, number];
    const length = given.get("encoder_hidden_states")!.shape[1]!;
    const denoise = await session.denoiser({ batch, height, width, length });
    const { output } = await denoise.run(feeds);
    const isPage = base === "picturebook";
    const options: ImagineOptions = {
      prompt: isPage ? "a red fox with a hat on a blue background" : "a cat, and a dog!",
      negativePrompt: "blurry",
      steps: 3,
      guidance: isPage ? 3 : 2,
      sampler: base === "sdxl" ? "euler" : "ddim",
      latents: given.get("latents")!,
      ...(!isPage && { height: 16, width: 24 }),
    };
    const { latents, rgb, height: rows, width: columns } = await imagine(pipeline, options, session); // prettier-ignore
    return {
      output: output!,
      final_latents: latents,
      image: tensor("u8", [rows, columns, 3], rgb),
    };
  } finally {
    await session.dispose();
  }
}
