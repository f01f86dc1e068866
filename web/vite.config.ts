// Builds the page into the server's crate: plain files plus a .gz of each text file, so that the
// server sends either without compressing anything itself.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { svelte } from '@sveltejs/vite-plugin-svelte'
import { gzipSync } from 'fflate'
import type { Plugin } from 'vite'
import { defineConfig } from 'vitest/config'

const outDir = '../crates/server/page'
const backend = 'http://127.0.0.1:11434'

/** KaTeX lists each font three times; every browser this page runs in reads woff2. */
function onlyWoff2(): Plugin {
  const others = /,url\([^)]*\.(?:woff|ttf)\)\s*format\(["'](?:woff|truetype)["']\)/g
  return {
    name: 'only-woff2',
    enforce: 'pre',
    transform(code, id) {
      return id.includes('katex') && id.endsWith('.css') ? code.replace(others, '') : null
    },
  }
}

/** Writes NAME.gz beside each text file. fflate gives the same bytes on every version of Node. */
function gzip(): Plugin {
  return {
    name: 'gzip',
    closeBundle() {
      for (const entry of readdirSync(outDir, { recursive: true, withFileTypes: true })) {
        const path = join(entry.parentPath, entry.name)
        if (entry.isFile() && /\.(?:css|html|js|svg)$/.test(entry.name)) {
          writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 9, mtime: 0 }))
        }
      }
    },
  }
}

export default defineConfig({
  base: './',
  plugins: [onlyWoff2(), svelte(), gzip()],
  build: {
    outDir,
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0, // data: URLs would need a weaker Content-Security-Policy
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  // `npm run dev` shows the page beside a running `cachalot serve`.
  server: {
    proxy: Object.fromEntries(['/v1', '/api', '/health', '/props'].map((p) => [p, backend])),
  },
  test: { include: ['tests/unit/*.test.ts'] },
})
