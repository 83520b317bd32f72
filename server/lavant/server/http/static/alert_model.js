// Alerts, made of the events of the run that tells of them. Pure.

import { milliseconds } from "./format.js";

const KEPT = 50;

export class AlertModel {
  constructor() {
    this.standing = new Map();
    this.changes = [];
  }

  apply(event) {
    const { rule_id: rule, alert, firing = false, value = 0, threshold = 0, count = 0, message = "" } = event.alert_changed;
    const change = { rule, alert, firing, value, threshold, count: Number(count), message, time: milliseconds(event.record_time ?? event.event_time) };
    this.standing.set(JSON.stringify([rule, alert]), change);
    this.changes = [change, ...this.changes.slice(0, KEPT - 1)];
  }

  of(rule, alert) {
    return this.standing.get(JSON.stringify([rule, alert]));
  }

  // Those that fire now, the latest first.
  get firing() {
    return [...this.standing.values()].filter((change) => change.firing).sort((a, b) => b.time - a.time);
  }
}
