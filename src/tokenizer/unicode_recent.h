// Characters of Unicode 15 and 16, which the Oniguruma inside the tokenizers library knows and the ICU and PCRE2 of a
// stable distribution may not. Made by running its \p{L}, \p{N} and \p{P} over all code points and taking away what
// Unicode 14 has; where a library knows a range already, adding it changes nothing.
#pragma once

#include <array>

namespace chorus {

struct CodePointRange {
  char32_t first, last;  // inclusive
};

constexpr std::array<CodePointRange, 35> recent_letters{
    {{0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3}, {0x10D4A, 0x10D65},
     {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x1123F, 0x11240}, {0x11380, 0x11389}, {0x1138B, 0x1138B},
     {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7}, {0x113D1, 0x113D1}, {0x113D3, 0x113D3},
     {0x11BC0, 0x11BE0}, {0x11F02, 0x11F02}, {0x11F04, 0x11F10}, {0x11F12, 0x11F33}, {0x1342F, 0x1342F},
     {0x13441, 0x13446}, {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF},
     {0x1B132, 0x1B132}, {0x1B155, 0x1B155}, {0x1DF25, 0x1DF2A}, {0x1E030, 0x1E06D}, {0x1E4D0, 0x1E4EB},
     {0x1E5D0, 0x1E5ED}, {0x1E5F0, 0x1E5F0}, {0x2B739, 0x2B739}, {0x2EBF0, 0x2EE5D}, {0x31350, 0x323AF}}};

constexpr std::array<CodePointRange, 10> recent_numbers{{{0x10D40, 0x10D49},
                                                         {0x116D0, 0x116E3},
                                                         {0x11BF0, 0x11BF9},
                                                         {0x11F50, 0x11F59},
                                                         {0x16130, 0x16139},
                                                         {0x16D70, 0x16D79},
                                                         {0x1CCF0, 0x1CCF9},
                                                         {0x1D2C0, 0x1D2D3},
                                                         {0x1E4F0, 0x1E4F9},
                                                         {0x1E5F1, 0x1E5FA}}};

constexpr std::array<CodePointRange, 10> recent_punctuation{{{0x1B4E, 0x1B4F},
                                                             {0x1B7F, 0x1B7F},
                                                             {0x10D6E, 0x10D6E},
                                                             {0x113D4, 0x113D5},
                                                             {0x113D7, 0x113D8},
                                                             {0x11B00, 0x11B09},
                                                             {0x11BE1, 0x11BE1},
                                                             {0x11F43, 0x11F4F},
                                                             {0x16D6D, 0x16D6F},
                                                             {0x1E5FF, 0x1E5FF}}};

}  // namespace chorus
