// Looks at the page of jobs in a real browser, for tests/tests/jobs_page.rs: its widths, schemes, script, keyboard and names.
//
//   node look.mjs TOOLS BROWSER URL JOB DONE FOLDER     one JSON object on standard output; pictures in FOLDER
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const [tools, browserPath, url, job, done, folder] = process.argv.slice(2);
const load = createRequire(join(tools, 'package.json'));
const puppeteer = load('puppeteer-core');
const axe = readFileSync(load.resolve('axe-core/axe.min.js'), 'utf8');

const found = { violations: [], overflows: [], errors: [], foreign: [], checked: 0 };
const browser = await puppeteer.launch({
  executablePath: browserPath,
  // The sandbox needs privileges that containers lack; what is shown is this project's own page.
  args: ['--no-sandbox', '--disable-dev-shm-usage'],
});
try {
  const page = await browser.newPage();
  page.on('console', (said) => said.type() === 'error' && found.errors.push(said.text()));
  page.on('pageerror', (error) => found.errors.push(String(error)));
  page.on('request', (asked) => {
    if (!asked.url().startsWith(url) && !asked.url().startsWith('data:')) found.foreign.push(asked.url());
  });
  for (const [name, path] of [['list', '/'], ['job', `/jobs/${job}`], ['done', `/jobs/${done}`]]) {
    for (const scheme of ['light', 'dark']) {
      for (const width of [390, 1280]) {
        await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
        await page.setViewport({ width, height: 900 });
        await page.goto(url + path, { waitUntil: 'networkidle0' });
        const what = `${name} ${scheme} ${width}`;
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        if (wide > 0) found.overflows.push(`${what}: ${wide} pixels`);
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => window.axe.run());
        found.violations.push(...violations.map((one) => ({
          what, id: one.id, impact: one.impact, nodes: one.nodes.map((node) => node.html.slice(0, 200)),
        })));
        await page.screenshot({ path: join(folder, `${name}-${scheme}-${width}.png`), fullPage: true });
        found.checked += 1;
      }
    }
  }
  // The link that has the keyboard's focus keeps it while the list changes beneath it.
  await page.goto(`${url}/`, { waitUntil: 'networkidle0' });
  await page.keyboard.press('Tab');
  found.first = await page.evaluate(() => document.activeElement.className);
  await page.focus(`#job-${job}`);
  const before = await page.$eval('main', (main) => main.innerHTML);
  const changed = (text) => document.querySelector('main').innerHTML !== text;
  await page.waitForFunction(changed, { timeout: 30000 }, before);
  found.focused = await page.evaluate(() => document.activeElement.id);
  // Who stops the updates reads in peace; who follows a link by the keyboard is there.
  await page.click('#live');
  const stopped = await page.$eval('main', (main) => main.innerHTML);
  await new Promise((resolve) => setTimeout(resolve, 7000));
  found.stands = !(await page.evaluate(changed, stopped));
  await page.focus(`#job-${job}`);
  await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')]);
  found.followed = page.url();
  // A text of a user's is a text.
  found.alive = await page.evaluate(() => window.owned === undefined);
  // Without the script the page says the same.
  await page.setJavaScriptEnabled(false);
  await page.goto(`${url}/jobs/${job}`);
  found.title = await page.title();
} finally {
  await browser.close();
}
console.log(JSON.stringify(found));
