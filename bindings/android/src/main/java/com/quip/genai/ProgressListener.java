package com.quip.genai;

/** Receives each new text of an answer, and at the end an empty text with done = true. */
@FunctionalInterface
public interface ProgressListener<OutputT> {
    void run(OutputT partialResult, boolean done);
}
