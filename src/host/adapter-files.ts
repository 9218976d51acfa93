import { join } from "node:path";
import { type Adapter, decodeAdapter, encodeAdapter } from "../adapter/adapter.ts";
import { LorikeetError } from "../errors.ts";
import { isFile, readText, writeAtomically } from "./files.ts";
import { readFile } from "node:fs/promises";

/** Writes `adapter_config.json` and `adapter_model.safetensors` into `folder`, as PEFT's save_pretrained does. */
export async function saveAdapter(adapter: Adapter, folder: string): Promise<void> {
  const { config, weights } = encodeAdapter(adapter);
  await writeAtomically(join(folder, "adapter_model.safetensors"), weights);
  await writeAtomically(join(folder, "adapter_config.json"), config);
}

/**
 * The adapter that PEFT (or Lorikeet) saved in `folder`.
 * @throws LorikeetError `file-not-found` when a file is absent; what `decodeAdapter` throws
 */
export async function loadAdapterFolder(folder: string): Promise<Adapter> {
  const [config, weights] = ["adapter_config.json", "adapter_model.safetensors"].map((file) =>
    join(folder, file),
  );
  for (const path of [config!, weights!])
    if (!(await isFile(path)))
      throw new LorikeetError(
        "file-not-found",
        `Expected an adapter folder with ${path}, found no such file`,
        {
          hint: "Give the folder that train or PEFT's save_pretrained wrote.",
        },
      );
  return decodeAdapter(await readText(config!), await readFile(weights!));
}
