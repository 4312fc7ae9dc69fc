// Looks at every page of a folder: node browser.cjs FOLDER. Ends with 1 if one of them has a fault.
const fs = require('fs');
const path = require('path');
const {chromium} = require('playwright-core');
const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const VIEWS = [[1200, 'light'], [1200, 'dark'], [360, 'light']];

async function look(browser, file, width, scheme) {
  const faults = [];
  const context = await browser.newContext({viewport: {width, height: 900}, colorScheme: scheme, bypassCSP: true});
  const page = await context.newPage();
  const requests = [];
  page.on('request', request => requests.push(request.url()));
  page.on('dialog', dialog => { faults.push('a dialog opened'); dialog.dismiss(); });
  page.on('pageerror', error => faults.push(error.message));
  await page.goto('file://' + file);
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (wider > 0) faults.push(`${wider} pixels wider than the window`);
  if (process.env.SHOTS) {
    const name = `${path.basename(file, '.html')}-${width}-${scheme}.png`;
    await page.screenshot({path: path.join(process.env.SHOTS, name), fullPage: true});
  }
  await page.evaluate(() => document.querySelectorAll('details').forEach(part => { part.open = true; }));
  const sorted = await page.evaluate(() => {
    const button = document.querySelector('th button');
    if (!button) return true;
    button.click();
    return button.closest('th').getAttribute('aria-sort') === 'ascending';
  });
  if (!sorted) faults.push('a table does not sort');
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run());
  for (const fault of found.violations.filter(item => ['serious', 'critical'].includes(item.impact)))
    faults.push(`${fault.id}: ${fault.nodes.length} x ${fault.nodes[0].html.slice(0, 100)}`);
  const others = requests.filter(url => url !== 'file://' + encodeURI(file));
  if (others.length) faults.push(`requests: ${others.join(', ')}`);
  await context.close();
  return faults;
}

(async () => {
  const folder = path.resolve(process.argv[2]);
  const browser = await chromium.launch({executablePath: process.env.BROWSER, args: ['--no-sandbox']});
  let bad = 0;
  for (const name of fs.readdirSync(folder).filter(item => item.endsWith('.html')))
    for (const [width, scheme] of VIEWS) {
      const faults = await look(browser, path.join(folder, name), width, scheme);
      console.log(`${name} ${width} ${scheme}: ${faults.length ? faults.join('; ') : 'good'}`);
      bad += faults.length;
    }
  await browser.close();
  process.exit(bad ? 1 : 0);
})();
