/** @file Where shared libraries may be: the loader's own paths, CUDA_HOME, LD_LIBRARY_PATH, Python's nvidia wheels. */
import { existsSync, readdirSync, realpathSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

type Environment = Readonly<Record<string, string | undefined>>;

/** Folders searched after the system loader's own paths, best first; those that do not exist are left out. */
export function libraryFolders(environment: Environment = process.env): string[] {
  const list = (name: string): string[] => (environment[name] ?? "").split(":").filter(Boolean);
  const toolkits = [...list("CUDA_HOME"), ...list("CUDA_PATH"), "/usr/local/cuda"];
  const folders = [
    ...toolkits.flatMap((root) => [
      join(root, "lib64"),
      join(root, "lib"),
      join(root, "targets/x86_64-linux/lib"),
    ]),
    ...list("LD_LIBRARY_PATH"),
    ...pythonPackages(environment).flatMap(nvidiaFolders),
  ];
  return [...new Set(folders)].filter((folder) => existsSync(folder));
}

/** site-packages folders of the active environments and of every python3 on PATH. */
function pythonPackages(environment: Environment): string[] {
  const prefixes = [environment["VIRTUAL_ENV"], environment["CONDA_PREFIX"]].filter(
    (p) => p !== undefined,
  );
  for (const folder of (environment["PATH"] ?? "").split(":")) {
    const python = join(folder, "python3");
    if (!folder || !existsSync(python)) continue;
    prefixes.push(resolve(folder, ".."), resolve(dirname(realpathSync(python)), ".."));
  }
  const libraries = [...new Set(prefixes)].flatMap((prefix) => [
    join(prefix, "lib"),
    join(prefix, "local/lib"),
  ]);
  const home = environment["HOME"];
  if (home) libraries.push(join(home, ".local/lib"));
  return [
    ...(environment["PYTHONPATH"] ?? "").split(":").filter(Boolean),
    ...libraries.flatMap(sitePackages),
  ];
}

function sitePackages(library: string): string[] {
  return entries(library)
    .filter((name) => /^python3(\.\d+)?$/.test(name))
    .flatMap((name) => [
      join(library, name, "site-packages"),
      join(library, name, "dist-packages"),
    ]);
}

/** `nvidia/<package>/lib` of a site-packages folder. */
function nvidiaFolders(site: string): string[] {
  const root = join(site, "nvidia");
  return entries(root).map((name) => join(root, name, "lib"));
}

function entries(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).sort().reverse() : [];
}
