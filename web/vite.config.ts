import { defineConfig } from 'vite';

// The API serves the page at /graphql and everything that the page loads under /playground/.
export default defineConfig({
  base: '/playground/',
  // Other people's settings must not leak into the bundle, and nothing here reads any.
  envPrefix: 'MEGATRON_PLAYGROUND_',
  worker: { format: 'es' },
  build: {
    target: 'es2022',
    // The polyfill would be one more script for browsers that this target leaves out anyway.
    modulePreload: { polyfill: false },
    // The editor is a big chunk by nature; the size that matters is watched by the build command, which prints it.
    chunkSizeWarningLimit: 5_000,
    reportCompressedSize: false,
    rolldownOptions: {
      // Libraries mark modules for servers that render React, of which there is none here.
      onLog(level, log, handle) {
        if (log.code !== 'MODULE_LEVEL_DIRECTIVE') handle(level, log);
      },
    },
  },
});
