import { join } from "node:path";
import { makeFolder } from "../host/files.ts";
import { type CaptionedFile, listImages } from "../host/image-folder.ts";
import type { TrainConfig } from "../host/train-config.ts";
import type { ImagePipeline } from "./image-pipeline.ts";
import { openImageSession } from "./image-session.ts";
import { imagine } from "./imagine.ts";
import { saveImage } from "./save-image.ts";

/**
 * The images that keep what the base knows of a class (DreamBooth's prior preservation): those in the class's folder,
 * and as many made by the base as are missing there. https://arxiv.org/abs/2208.12242
 * @param folder where they are when the settings name no folder
 */
export async function classImages(
  pipeline: ImagePipeline,
  config: TrainConfig,
  folder: string,
): Promise<CaptionedFile[]> {
  const { class_prompt: prompt, num_class_images: count, resolution } = config;
  if (prompt === null) return [];
  const place = config.class_data_dir ?? folder;
  await makeFolder(place);
  const found = await listImages(place).catch(() => []);
  if (found.length < count) {
    const session = await openImageSession(pipeline);
    try {
      for (let seed = found.length; seed < count; seed++) {
        const size = resolution === null ? {} : { width: resolution, height: resolution };
        const options = { prompt, seed, guidance: config.sample_guidance, ...size };
        const path = join(place, `${String(seed).padStart(4, "0")}.png`);
        await saveImage(await imagine(pipeline, options, session), path);
      }
    } finally {
      await session.dispose();
    }
  }
  const images = await listImages(place);
  return images.slice(0, count).map((path) => ({ path, caption: prompt }));
}
