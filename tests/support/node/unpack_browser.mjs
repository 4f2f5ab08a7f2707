// Unpacks the Chromium that @sparticuz/chromium carries: node unpack_browser.mjs BIN_FOLDER TARGET
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';

const [, , packed, target] = process.argv;
for (const name of ['chromium', 'al2023.tar', 'swiftshader.tar']) {
  const bytes = brotliDecompressSync(readFileSync(join(packed, `${name}.br`)));
  writeFileSync(join(target, name), bytes, { mode: 0o755 });
}
