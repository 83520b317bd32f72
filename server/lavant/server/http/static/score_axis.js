// Where the marks of a chart's axes are. Pure.

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const STEPS = [5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 30 * DAY];
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: "UTC" });
const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });

// All times are in UTC: a view that is shared looks the same to everybody, and a day's bucket is a day.
export const clock = (time) => CLOCK.format(time);
export const date = (time) => DATE.format(time);
export const moment = (time) => `${date(time)} ${clock(time)}`;

export function stretch(start, length) {
  if (length >= DAY) return length === DAY ? date(start) : `${date(start)} – ${date(start + length - DAY)}`;
  return `${moment(start)} – ${clock(start + length)}`;
}

// At most `most` round times between two, each with what it is called.
export function timeMarks(start, end, most) {
  const step = STEPS.find((one) => (end - start) / one <= most) ?? STEPS.at(-1);
  const marks = [];
  for (let time = Math.ceil(start / step) * step; time <= end; time += step) {
    marks.push({ time, text: time % DAY ? clock(time) : date(time) });
  }
  return marks;
}

// The values that an axis spans: 0 to 1 if all lie there, else round ones around them.
export function valueMarks(values) {
  const [low, high] = [Math.min(0, ...values), Math.max(1, ...values)];
  const step = (low === 0 && high === 1) ? 0.25 : roundStep((high - low) / 4);
  const [first, last] = [Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9)];
  const marks = [];
  for (let index = first; index <= last; index += 1) marks.push(Number((index * step).toPrecision(12)));
  return marks;
}

function roundStep(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 2.5, 5, 10].find((one) => one * power >= step * (1 - 1e-9)) * power;
}

// Runs of a line's points that follow each other, and the gaps between them.
export function segments(points, bucket) {
  const solid = [];
  const gaps = [];
  for (const [index, point] of points.entries()) {
    const previous = points[index - 1];
    if (previous && point.time - previous.time === bucket) solid.at(-1).push(point);
    else {
      if (previous) gaps.push([previous, point]);
      solid.push([point]);
    }
  }
  return { solid: solid.filter((part) => part.length > 1), gaps };
}
