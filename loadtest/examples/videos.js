// Callers of the Videos API for k6 (https://k6.io), an open loop: arrivals do not wait for the server.
//
//   k6 run -e BASE=http://127.0.0.1:8000 -e RATE=1 loadtest/examples/videos.js
//
// `video_seconds` is the time from the create to the look that found the video completed; `rejected` counts 429s.
import http from "k6/http";
import { sleep } from "k6";
import { Counter, Trend } from "k6/metrics";

const BASE = __ENV.BASE || "http://127.0.0.1:8000";
const RED =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAJCAIAAAC0SDtlAAAAF0lEQVR42mM8wcXFQApgYiARjGqgiQYA" +
  "i0sA7jIUkUAAAAAASUVORK5CYII=";
const POLL_S = 0.5;

const videoSeconds = new Trend("video_seconds");
const rejected = new Counter("rejected");
const failed = new Counter("failed_videos");

export const options = {
  scenarios: {
    open: {
      executor: "constant-arrival-rate",
      rate: Number(__ENV.RATE || 1),
      timeUnit: "1s",
      duration: __ENV.DURATION || "1m",
      preAllocatedVUs: 100, // an arrival without a free one is dropped, and k6 says so
    },
  },
};

export default function () {
  const body = JSON.stringify({
    model: "skyreels-v3-r2v",
    prompt: "A red ball rolls over a grey floor",
    images: [RED],
    aspect_ratio: "16:9",
    seconds: 1,
  });
  const began = Date.now();
  const created = http.post(`${BASE}/v1/videos`, body, { headers: { "Content-Type": "application/json" } });
  if (created.status === 429) {
    rejected.add(1);
    return;
  }
  if (created.status !== 200) {
    failed.add(1);
    return;
  }
  const id = created.json("id");
  let status = "queued";
  while (status !== "completed" && status !== "failed") {
    sleep(POLL_S);
    const looked = http.get(`${BASE}/v1/videos/${id}`, { tags: { name: "/v1/videos/{id}" } });
    status = looked.status === 200 ? looked.json("status") : status;
  }
  if (status === "failed") {
    failed.add(1);
    return;
  }
  videoSeconds.add((Date.now() - began) / 1000);
}
