// Server-sent events, as the HTML standard says to parse them, of which this API uses the data.

/**
 * The data of each event of a stream of bytes, as text.
 * @param {ReadableStream<Uint8Array>} body
 */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      buffer += done ? "" : value;
      // A carriage return at the end may be half of a line end.
      const lines = buffer.split(/\r\n|\n|\r(?!$)/);
      buffer = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(5).replace(/^ /, ""));
        }
      }
      // An event that is cut off is no event.
      if (done) return;
    }
  } finally {
    // A reader that stops does not want the rest.
    reader.cancel().catch(() => {});
  }
}
