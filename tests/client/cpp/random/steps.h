// The steps of random sequences: each calls one verb, and compares the answer
// with the model's.

#ifndef BACKBONED_TESTS_CLIENT_CPP_RANDOM_STEPS_H_
#define BACKBONED_TESTS_CLIENT_CPP_RANDOM_STEPS_H_

#include "tests/client/cpp/random/choice.h"
#include "tests/client/cpp/random/world.h"

namespace backboned::client::random {

// forward_steps.cc
void Forward(World& world, Choice& choice);
void TrainStep(World& world, Choice& choice);
void Extract(World& world, Choice& choice);

// backward_steps.cc
void Backward(World& world, Choice& choice);
void ReleaseTapes(World& world, Choice& choice);

// state_steps.cc
void GetParams(World& world, Choice& choice);
void SetParams(World& world, Choice& choice);
void GetGrads(World& world, Choice& choice);
void SetGrads(World& world, Choice& choice);
void ZeroGrads(World& world, Choice& choice);
void GetBuffers(World& world, Choice& choice);
void SetBuffers(World& world, Choice& choice);
// Interrupts an upload.
void BreakOff(World& world, Choice& choice);

// optimizer_steps.cc
void ConfigureOptimizer(World& world, Choice& choice);
void StepOptimizer(World& world, Choice& choice);
void GetOptimizerState(World& world, Choice& choice);
void SetOptimizerState(World& world, Choice& choice);

// instance_steps.cc
void GetInstance(World& world, Choice& choice);
void CloneInstance(World& world, Choice& choice);
void UpdateInstance(World& world, Choice& choice);
void DeleteInstance(World& world, Choice& choice);
// Repeats the last change that had a request id.
void Repeat(World& world, Choice& choice);

}  // namespace backboned::client::random

#endif  // BACKBONED_TESTS_CLIENT_CPP_RANDOM_STEPS_H_
