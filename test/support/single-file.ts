import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { serializeSafetensors } from "../../src/formats/safetensors-write.ts";
import { toOriginalUnetName, unetLayout } from "../../src/formats/stable-diffusion/unet-names.ts";
import { toOriginalVaeName } from "../../src/formats/stable-diffusion/vae-names.ts";
import type { PipelineCheckpoint } from "../../src/host/open-pipeline.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";

/** Writes a pipeline of SD 1's kind (in diffusers layout) as one file in the original layout, its tokenizer beside it. */
export async function writeSingleFile(
  { path, weights, configs }: PipelineCheckpoint,
  file: string,
): Promise<void> {
  const tensors = new Map<string, Tensor>();
  for (const name of weights.names) {
    const [, model, own] = /^(unet|vae|text_encoder)\.(.+)$/.exec(name)!;
    const value = await weights.read(name);
    if (model === "unet")
      tensors.set(`model.diffusion_model.${toOriginalUnetName(own!, unetLayout(configs.unet))}`, value); // prettier-ignore
    else if (model === "text_encoder") tensors.set(`cond_stage_model.transformer.${own!}`, value);
    else {
      // attention of the autoencoder was made of 1×1 convolutions
      const isConv = /attentions.*(to_q|to_k|to_v|to_out\.0)\.weight$/.test(own!);
      const shape = isConv ? [...value.shape, 1, 1] : value.shape;
      tensors.set(`first_stage_model.${toOriginalVaeName(own!, 2)}`, { ...value, shape });
    }
  }
  const tokenizer = join(dirname(file), "tokenizer");
  await mkdir(tokenizer, { recursive: true });
  await writeFile(file, serializeSafetensors(tensors));
  for (const name of ["vocab.json", "merges.txt"])
    await copyFile(join(path, "tokenizer", name), join(tokenizer, name));
}
