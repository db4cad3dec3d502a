// Numbers for people: three digits, the unit that fits, a real minus sign.

const UNKNOWN = "–";
/** Half of the last digit. */
const INVISIBLE = 0.005;

function scaled(value, steps) {
  if (value === null || value === undefined || !Number.isFinite(value)) return UNKNOWN;
  const [from, unit, size = from] = steps.find(([least]) => Math.abs(value) >= least) ?? steps.at(-1);
  if (Math.abs(value / size) < INVISIBLE) return `0 ${steps.find(([step]) => step === 1)[1]}`;
  return `${digits(value / size)} ${unit}`;
}

/** Three significant digits, but whole numbers in full. */
export function digits(value) {
  const size = Math.abs(value);
  if (size < INVISIBLE) return "0";
  const text = size >= 99.95 ? value.toFixed(0) : size >= 9.995 ? value.toFixed(1) : value.toFixed(2);
  return text.replace("-", "−");
}

export const seconds = (value) =>
  scaled(value, [[172_800, "days", 86_400], [7200, "h", 3600], [1, "s"], [1e-3, "ms"]]);
export const joules = (value) => scaled(value, [[1e6, "MJ"], [1e3, "kJ"], [1, "J"], [1e-3, "mJ"]]);
export const watts = (value) => scaled(value, [[1e3, "kW"], [1, "W"]]);
/** How many there are. */
export const count = (value) => Math.round(value).toLocaleString("en");
export const percent = (share) =>
  share === null || share === undefined ? UNKNOWN : `${Math.round(100 * share)} %`.replace("-", "−");
export const signed = (value) => (value > 0 ? "+" : "") + digits(value);
export const factor = (value) => `×${digits(value)}`;
export const range = ([low, high], write) => {
  const [from, to] = [write(low), write(high)];
  const [unitFrom, unitTo] = [from.split(" ")[1], to.split(" ")[1]];
  return unitFrom === unitTo ? `${from.split(" ")[0]} to ${to}` : `${from} to ${to}`;
};
export const clock = (unixSeconds) =>
  new Date(1000 * unixSeconds).toLocaleTimeString([], { hour12: false });
