#include "tests/testing/fake_cuda/streams.h"

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>

namespace fake_cuda {
namespace {

c10::Stream StreamNumber(c10::StreamId id) {
  return c10::Stream(c10::Stream::UNSAFE, c10::Device(c10::DeviceType::CUDA, 0),
                     id);
}

class StreamsTest : public ::testing::Test {
 protected:
  StreamsTest() {
    GTEST_FLAG_SET(death_test_style, "threadsafe");  // LibTorch has threads.
    streams_.Allocated(first_, &block_);
  }

  // A write of the block on the first stream.
  void Write() {
    streams_.Launch(first_, {.name = "write", .writes = {&block_}});
  }
  void ReadOn(const c10::Stream& stream) {
    streams_.Launch(stream, {.name = "read", .reads = {&block_}});
  }

  const c10::Stream first_ = StreamNumber(1), second_ = StreamNumber(2);
  char block_ = 0;
  Streams streams_;
};

TEST_F(StreamsTest, AStreamKeepsItsOrder) {
  Write();
  ReadOn(first_);
  Write();
  streams_.Freed(&block_);
}

TEST_F(StreamsTest, FindsAReadWithoutAWait) {
  Write();
  EXPECT_DEATH(ReadOn(second_),
               "read uses what write writes on stream 1 of cuda:0");
}

TEST_F(StreamsTest, FindsAWriteBesideARead) {
  ReadOn(second_);
  EXPECT_DEATH(Write(), "write writes what stream 2 of cuda:0 reads");
}

TEST_F(StreamsTest, FindsMemoryThatIsFreedTooEarly) {
  ReadOn(second_);
  EXPECT_DEATH(streams_.Freed(&block_), "memory is freed that stream 2");
  streams_.Recorded(second_, &block_);
  streams_.Freed(&block_);
}

TEST_F(StreamsTest, AnEventPutsStreamsInOrder) {
  Write();
  Event event;
  streams_.Record(first_, event);
  streams_.Block(second_, event);
  ReadOn(second_);
}

TEST_F(StreamsTest, AnEventOfBeforeDoesNot) {
  Event event;
  streams_.Record(first_, event);
  Write();
  streams_.Block(second_, event);
  EXPECT_DEATH(ReadOn(second_), "without a wait in between");
}

TEST_F(StreamsTest, WhatTheHostHasWaitedForIsInOrder) {
  Write();
  streams_.Wait(first_);
  ReadOn(second_);
  streams_.Wait(second_);
  streams_.Freed(&block_);
}

TEST_F(StreamsTest, TheHostSeesEffectsWhenItHasWaited) {
  bool happened = false;
  Write();
  streams_.Later(first_, &happened, [&] { happened = true; });
  Event event;
  streams_.Record(first_, event);
  streams_.Wait(second_);
  EXPECT_FALSE(happened);
  EXPECT_FALSE(streams_.Query(event));
  EXPECT_FALSE(happened);
  EXPECT_TRUE(streams_.Query(event));
  EXPECT_TRUE(happened);
}

TEST_F(StreamsTest, ForgetsMemoryThatIsGone) {
  bool happened = false;
  Write();
  streams_.Later(first_, &happened, [&] { happened = true; });
  streams_.Forget(&happened);
  streams_.Wait(first_);
  EXPECT_FALSE(happened);
}

TEST_F(StreamsTest, TakesTime) {
  setenv("FAKE_CUDA_KERNEL_US", "20000", /*overwrite=*/1);
  Streams slow;
  unsetenv("FAKE_CUDA_KERNEL_US");
  Event begin, end;
  slow.Record(first_, begin);
  slow.Launch(first_, {.name = "any"});
  slow.Launch(first_, {.name = "any"});
  slow.Record(first_, end);
  EXPECT_FALSE(slow.Query(end));
  slow.Wait(end);
  EXPECT_TRUE(slow.Query(begin));
  EXPECT_GE(end.time - begin.time, std::chrono::milliseconds(40));
}

TEST_F(StreamsTest, AFaultAppearsWithTheFirstWaitBehindIt) {
  setenv("FAKE_CUDA_FAULT", "aten::mm:2", /*overwrite=*/1);
  Streams faulty;
  unsetenv("FAKE_CUDA_FAULT");
  faulty.Launch(first_, {.name = "aten::mm"});
  faulty.Wait(first_);
  faulty.Launch(first_, {.name = "aten::mm"});
  faulty.Launch(first_, {.name = "aten::add"});
  faulty.Wait(second_);
  EXPECT_THROW(faulty.Wait(first_), c10::AcceleratorError);
  EXPECT_THROW(faulty.Launch(second_, {.name = "aten::add"}),
               c10::AcceleratorError);
}

}  // namespace
}  // namespace fake_cuda
