package com.quip.genai;

import com.google.common.util.concurrent.ListenableFuture;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;

/** The future of an answer that a thread of its own generates. */
final class Answer extends CompletableFuture<String> implements ListenableFuture<String> {
    private Answer() {}

    static Answer start(Callable<String> work) {
        Answer answer = new Answer();
        Thread thread =
                new Thread(
                        () -> {
                            try {
                                answer.complete(work.call());
                            } catch (Throwable e) { // also of the caller's listener
                                answer.completeExceptionally(e);
                            }
                        },
                        "quip-answer");
        thread.setDaemon(true);
        thread.start();
        return answer;
    }

    @Override
    public void addListener(Runnable listener, Executor executor) {
        whenComplete((text, error) -> executor.execute(listener));
    }
}
