import type { Adapter } from "../adapter/adapter.ts";
import type { Attachment } from "../adapter/attach.ts";
import { faultsError, quoteName } from "../formats/faults.ts";
import { formatShape, sameShape } from "../tensor/shape.ts";
import { trainableParameters, type TrainPlan } from "../train/plan.ts";

/**
 * Makes sure that the adapter's tensors are the trainable parameters of the model `plan`, in their shapes.
 * @throws LorikeetError `adapter-mismatch` listing every fault
 */
export function checkAdapter(
  plan: TrainPlan,
  { values }: Pick<Attachment, "values">,
  { config }: Pick<Adapter, "config">,
): void {
  const faults: string[] = [];
  const wanted = new Map(trainableParameters(plan).map(({ name, shape }) => [name!, shape]));
  for (const [name, shape] of wanted) {
    const got = values.get(name)?.shape;
    if (got === undefined) faults.push(`${quoteName(name)} ${formatShape(shape)} is missing`);
    else if (!sameShape(got, shape))
      faults.push(
        `${quoteName(name)} is ${formatShape(got)}, this model needs ${formatShape(shape)}`,
      );
  }
  // where ties are kept, PEFT saves the embedding's tensors under the head's name too
  const extra = config.ensureWeightTying ? [] : [...values.keys()];
  for (const name of extra)
    if (!wanted.has(name)) faults.push(`${quoteName(name)} belongs to no layer of this model`);
  if (faults.length > 0)
    throw faultsError(
      "adapter-mismatch",
      "the tensors of an adapter of this model",
      faults,
      "Use the base that the adapter was trained on: base_model_name_or_path in its adapter_config.json.",
    );
}
