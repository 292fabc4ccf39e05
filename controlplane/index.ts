/** The package's face: what `import ... from 'sluice'` gives. */
export { ConfigError, loadConfig, parseConfig } from './config/index.ts';
export { createRouter, Router, type RouterOptions } from './router.ts';
