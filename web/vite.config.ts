import { defineConfig } from "vitest/config";

// The build depends on nothing but the sources and the locked packages: it is committed, and CI compares.
export default defineConfig({
  base: "/static/",
  build: {
    assetsDir: "",
    assetsInlineLimit: 0,
    modulePreload: false,
    target: "es2022",
  },
  test: {
    environment: "jsdom",
    include: ["src/**/*.test.ts"],
  },
});
