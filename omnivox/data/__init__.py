"""Building InstructS2S data: from written instructions to spoken questions, spoken answers and their units."""
