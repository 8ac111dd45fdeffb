"""The parts that every room uses: errors, options, settings, random streams, storage, the fixed tree."""
