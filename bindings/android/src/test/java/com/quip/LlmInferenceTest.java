package com.quip;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotEquals;
import static org.junit.Assert.assertSame;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import com.google.common.util.concurrent.ListenableFuture;
import com.quip.genai.AudioModelOptions;
import com.quip.genai.GraphOptions;
import com.quip.genai.LlmInference;
import com.quip.genai.LlmInference.LlmInferenceOptions;
import com.quip.genai.LlmInferenceSession;
import com.quip.genai.LlmInferenceSession.LlmInferenceSessionOptions;
import com.quip.genai.PromptTemplates;
import com.quip.genai.VisionModelOptions;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.Test;

/** MediaPipe's API, in Java, as its users call it. */
public class LlmInferenceTest {
    private static LlmInference open(int maxTokens) {
        return LlmInference.createFromOptions(
                null,
                LlmInferenceOptions.builder()
                        .setModelPath(Fixtures.INSTANCE.getTiny().getPath())
                        .setMaxTokens(maxTokens)
                        .build());
    }

    private static LlmInferenceSession greedy(LlmInference llm) {
        return LlmInferenceSession.createFromOptions(
                llm, LlmInferenceSessionOptions.builder().setTopK(1).build());
    }

    @Test
    public void answersArePromptAfterPrompt() throws Exception {
        try (LlmInference llm = open(100)) {
            String sync = llm.generateResponse("the hen");
            assertFalse(sync.isEmpty());
            assertEquals(sync, llm.generateResponse("the hen")); // the seed is 0, the session new
            List<String> pieces = Collections.synchronizedList(new ArrayList<>());
            List<Boolean> ends = Collections.synchronizedList(new ArrayList<>());
            ListenableFuture<String> future =
                    llm.generateResponseAsync(
                            "the hen",
                            (text, done) -> {
                                pieces.add(text);
                                ends.add(done);
                            });
            assertEquals(sync, future.get(60, TimeUnit.SECONDS));
            assertEquals(sync, String.join("", pieces));
            assertEquals(ends.size() - 1, ends.indexOf(true));
            assertTrue(llm.sizeInTokens("the hen") > 0);
        }
    }

    @Test
    public void chunksFollowEachOther() {
        try (LlmInference llm = open(200);
                LlmInferenceSession a = greedy(llm);
                LlmInferenceSession b = greedy(llm)) {
            a.addQueryChunk("the ");
            a.addQueryChunk("hen");
            b.addQueryChunk("hen");
            LlmInferenceSession copy = a.cloneSession();
            String answer = a.generateResponse();
            assertEquals(answer, copy.generateResponse());
            assertNotEquals(answer, b.generateResponse());
            copy.close();
        }
    }

    @Test
    public void oneCallAtATimeForASession() throws Exception {
        try (LlmInference llm = open(400);
                LlmInferenceSession session = greedy(llm)) {
            session.addQueryChunk("the");
            CountDownLatch inListener = new CountDownLatch(1);
            CountDownLatch release = new CountDownLatch(1);
            ListenableFuture<String> future =
                    session.generateResponseAsync(
                            (text, done) -> {
                                inListener.countDown();
                                await(release);
                            });
            await(inListener);
            assertThrows(IllegalStateException.class, () -> session.addQueryChunk("more"));
            assertThrows(IllegalStateException.class, session::generateResponseAsync);
            session.cancelGenerateResponseAsync();
            release.countDown();
            future.get(60, TimeUnit.SECONDS);
            assertEquals(FinishReason.CANCELLED, session.result().getFinishReason());
            session.addQueryChunk("more"); // by done = true the session is free
        }
    }

    private static void await(CountDownLatch latch) {
        try {
            assertTrue(latch.await(60, TimeUnit.SECONDS));
        } catch (InterruptedException e) {
            throw new AssertionError(e);
        }
    }

    @Test
    public void anExceptionOfAListenerIsThatOfTheFuture() throws Exception {
        try (LlmInference llm = open(400);
                LlmInferenceSession session = greedy(llm)) {
            RuntimeException mine = new RuntimeException("mine");
            session.addQueryChunk("the");
            AtomicInteger calls = new AtomicInteger();
            ListenableFuture<String> future =
                    session.generateResponseAsync(
                            (text, done) -> {
                                calls.incrementAndGet();
                                throw mine;
                            });
            ExecutionException e =
                    assertThrows(ExecutionException.class, () -> future.get(60, TimeUnit.SECONDS));
            assertSame(mine, e.getCause());
            assertEquals(1, calls.get());
            session.addQueryChunk("more");
            CountDownLatch heard = new CountDownLatch(1);
            session.generateResponseAsync().addListener(heard::countDown, Runnable::run);
            await(heard);
        }
    }

    /** Templates are text around the turns: the same as writing them by hand. */
    @Test
    public void promptTemplates() {
        PromptTemplates templates =
                PromptTemplates.builder()
                        .setUserPrefix("<u>")
                        .setUserSuffix("</u>")
                        .setModelPrefix("<m>")
                        .setModelSuffix("</m>")
                        .build();
        try (LlmInference llm = open(300);
                LlmInferenceSession a =
                        LlmInferenceSession.createFromOptions(
                                llm,
                                LlmInferenceSessionOptions.builder()
                                        .setTopK(1)
                                        .setPromptTemplates(templates)
                                        .build());
                LlmInferenceSession b = greedy(llm)) {
            a.addQueryChunk("hen");
            b.addQueryChunk("<u>");
            b.addQueryChunk("hen");
            b.addQueryChunk("</u><m>");
            assertEquals(b.generateResponse(), a.generateResponse());
        }
    }

    @Test
    public void optionsBetweenTurns() {
        try (LlmInference llm = open(300);
                LlmInferenceSession session = greedy(llm)) {
            session.updateSessionOptions(o -> o.setTemperature(0.1f).setTopK(5));
            assertEquals(5, session.getSessionOptions().topK());
            assertThrows(
                    IllegalArgumentException.class,
                    () -> session.updateSessionOptions(o -> o.setTopK(41)));
            assertThrows(
                    IllegalArgumentException.class,
                    () -> session.updateSessionOptions(o -> o.setLoraPath("/other")));
            assertEquals(5, session.getSessionOptions().topK());
        }
    }

    @Test
    public void loraPath() {
        String lora = Fixtures.INSTANCE.getAdapter().getPath();
        try (LlmInference llm = open(100);
                LlmInferenceSession plain = greedy(llm);
                LlmInferenceSession tuned =
                        LlmInferenceSession.createFromOptions(
                                llm,
                                LlmInferenceSessionOptions.builder()
                                        .setTopK(1)
                                        .setLoraPath(lora)
                                        .build())) {
            plain.addQueryChunk("the hen");
            tuned.addQueryChunk("the hen");
            assertNotEquals(plain.generateResponse(), tuned.generateResponse());
        }
    }

    @Test
    public void whatIsRefused() {
        assertThrows(IllegalStateException.class, () -> LlmInferenceOptions.builder().build());
        assertThrows(
                QuipException.class,
                () -> LlmInferenceOptions.builder().setModelPath("a").setMaxNumImages(1).build());
        GraphOptions vision = GraphOptions.builder().setEnableVisionModality(true).build();
        assertThrows(
                QuipException.class,
                () -> LlmInferenceSessionOptions.builder().setGraphOptions(vision).build());
        VisionModelOptions images = VisionModelOptions.builder().setEncoderPath("a").build();
        assertThrows(
                QuipException.class,
                () ->
                        LlmInferenceOptions.builder()
                                .setModelPath("a")
                                .setVisionModelOptions(images)
                                .build());
        AudioModelOptions sound = AudioModelOptions.builder().setMaxAudioSequenceLength(9).build();
        assertThrows(
                QuipException.class,
                () ->
                        LlmInferenceOptions.builder()
                                .setModelPath("a")
                                .setAudioModelOptions(sound)
                                .build());
        LlmInferenceSessionOptions.builder().setConstraintHandle(0).build();
        assertThrows(
                QuipException.class,
                () -> LlmInferenceSessionOptions.builder().setConstraintHandle(7).build());
        try (LlmInference llm = open(10)) {
            assertThrows(QuipException.class, llm::getSentencePieceProcessorHandle);
            assertThrows(
                    IllegalStateException.class, // the context is full
                    () -> llm.generateResponse(String.join("", Collections.nCopies(99, "hen "))));
            LlmInferenceSession session = greedy(llm);
            assertThrows(QuipException.class, () -> session.addImage(new Object()));
            assertThrows(QuipException.class, () -> session.addAudio(new byte[0]));
            session.close();
            assertThrows(IllegalStateException.class, () -> session.addQueryChunk("a"));
        }
    }
}
